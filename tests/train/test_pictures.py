"""What TensorBoard shows of a pixel prompt."""

import numpy as np
import pytest

from vprompt_jax.config import resolve
from vprompt_jax.train import pictures
from vprompt_jax.train.training import assemble


@pytest.fixture
def run(tiny_config):
    tiny_config.data.few_shot = 8
    tiny_config.optim.warmup_steps = 0
    return assemble(resolve(tiny_config))


def test_a_panel_has_a_column_per_image_and_a_row_per_kind(run):
    state, adaptation, val = run.initial_state(), run.adaptation, run.dataset.val
    variables = adaptation.variables(state.params, state.assigned)
    shown = pictures.of_pixels(adaptation, variables, val, run.root)
    assert set(shown) == {"examples", "prompt"}
    side, gap = 128, 130
    assert shown["prompt"].shape == (1, side, side, 3)
    panel = shown["examples"]
    assert panel.shape == (1, 16 + 3 * gap, 64 + 4 * gap, 3)
    (names, left) = panel[0, :16], panel[0, 16:, :64]
    assert max(names.min(), left.min()) < 0.1  # black letters on white
    for column, image in enumerate(val.fetch(np.arange(4))):
        at = 64 + column * gap
        cell = panel[0, 16 : 16 + side, at : at + side]
        np.testing.assert_allclose(cell[::4, ::4], image / 255, atol=0.01)  # a pixel is 4 x 4
        mask = panel[0, 16 + gap : 16 + gap + side, at : at + side]
        assert set(np.unique(mask)) <= {0.0, 1.0}


def test_other_parts_have_no_pictures(tiny_config):
    tiny_config.method.name, tiny_config.data.few_shot = "linear", 8
    tiny_config.optim.warmup_steps = 0
    run = assemble(resolve(tiny_config))
    variables = run.adaptation.variables(run.initial_state().params, {})
    assert pictures.of_pixels(run.adaptation, variables, run.dataset.val, run.root) == {}
