"""What does not count as a result: numbers that are not finite, a warm-up without a run, old data."""

import json
import math
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

import vprompt_jax as vp
from tests.conftest import small_config
from vprompt_jax.config import resolve
from vprompt_jax.data import digits
from vprompt_jax.data.arrays import from_arrays
from vprompt_jax.launching.launch import launch
from vprompt_jax.process import finite
from vprompt_jax.process.errors import UserError
from vprompt_jax.train import fit, training
from vprompt_jax.train.evaluate import evaluate

WEIGHT = ("params", "visual", "resblocks_1", "mlp", "c_fc", "bias")


def few_images(config, per_class: int = 8):
    """Makes runs of a tenth of a second: two steps per epoch."""
    config.data.few_shot = per_class
    config.optim.batch_size = 40
    config.optim.epochs = 1
    config.optim.warmup_steps = 1
    return config


@pytest.fixture
def nan_weight(monkeypatch):
    """Puts a NaN into one weight of whatever tower a run loads, after loading."""

    def load(config):
        clip, variables = vp.adaptation.load_clip(config)
        variables = jax.tree.map(np.array, variables)
        leaf = variables
        for name in WEIGHT:
            leaf = leaf[name]
        leaf[0] = np.nan
        return clip, variables

    monkeypatch.setattr(training, "load_clip", load)
    return "visual.resblocks_1.mlp.c_fc.bias (1 numbers)"


@pytest.mark.parametrize("method", ["adavipro", "tp", "linear", "ap", "norm"])
@pytest.mark.parametrize("epochs", [1, 10])
def test_weights_that_are_not_finite_end_a_run_by_their_name(
    tiny_config, tmp_path, capsys, nan_weight, method, epochs
):
    if epochs > 1 and method == "tp":
        pytest.skip("zero-shot has no steps")
    c = few_images(tiny_config)
    c.method.name, c.optim.epochs = method, epochs  # of two steps: 2 and 20
    with pytest.raises(SystemExit) as stop:
        launch(c, str(tmp_path / "run"))
    assert stop.value.code == 1
    message = capsys.readouterr().err
    assert message.count("error: ") == 1
    assert "not finite" in message
    assert nan_weight in message
    assert not (tmp_path / "run" / "result.json").exists()


@pytest.mark.parametrize("protocol", ["val", "paper"])
def test_a_run_all_of_whose_steps_were_undone_is_no_result(tiny_config, tmp_path, protocol):
    c = few_images(tiny_config)
    c.protocol = protocol
    c.method.name, c.prompt.learning_rate = "vp", 1e30
    with pytest.raises(UserError, match=r"all 2 steps of the run had .* not finite.*\n.*prompt"):
        fit(c, tmp_path / "run")
    assert not (tmp_path / "run" / "result.json").exists()


@pytest.mark.parametrize("name", ["val", "test"])
def test_logits_that_are_not_finite_name_their_split(tiny_config, tmp_path, monkeypatch, name):
    """Weights and training images are fine; what is evaluated overflows."""
    from vprompt_jax.train import step

    sums = step._sums

    def poisoned(logits, batch, out):
        # Labels of train are looked at, too, but there is no such class there.
        return sums(logits, batch, out)

    del poisoned
    c = few_images(tiny_config)
    c.method.name = "vp"
    run_evaluate = evaluate

    def broken(on_batch, batches, bad=[0]):
        bad[0] += 1
        if (bad[0] == 1) == (name == "val"):
            def on_batch(batch, inner=on_batch):
                return inner(batch) | {"not_finite": jax.numpy.float32(3)}
        return run_evaluate(on_batch, batches)

    from vprompt_jax.train import loop, run

    monkeypatch.setattr(loop, "evaluate", broken)
    monkeypatch.setattr(run, "evaluate", broken)
    with pytest.raises(UserError, match=rf"the {name} split: the logits of .* images are not finite: "
                       r"the weights are finite.*lower config\.prompt\.learning_rate"):  # fmt: skip
        fit(c, tmp_path / "run")
