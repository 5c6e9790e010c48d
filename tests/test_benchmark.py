"""The benchmark's counts: a step is near the least it can cost, and compiled once."""

import pytest

from tests.adapters.conftest import random_variables
from tests.conftest import TINY
from vprompt_jax.benchmark import measure, rows
from vprompt_jax.clip import CLIP
from vprompt_jax.config import default_config
from vprompt_jax.errors import UserError


def row(tmp_path, method, **keys):
    config = default_config()
    config.method.name = method
    config.optim.batch_size = config.eval.batch_size = 8
    with config.unlocked():
        config.update_from_flattened_dict(keys)
    return rows.make_row(config, method, CLIP(TINY), random_variables(TINY), 5, tmp_path)


def test_no_gradient_of_frozen_weights_and_no_text_is_computed(tmp_path):
    """VP, and AP on its cached prefix, stay within 5 % of the forward pass and input gradient;
    tuning all weights costs about half as much again."""
    made = row(tmp_path, "vp")
    assert made.parameters == 3 * (32**2 - 24**2)
    assert made.cost.flops < 1.05 * made.floor
    # 32 x 32 pixels in uint8, with a label, an index and a weight of four bytes each.
    assert made.bytes_per_image == 32 * 32 * 3 + 12
    assert 1 <= made.compilations < 3
    made.run_step()
    late = row(tmp_path, "ap", **{"ap.positions": (1,)})
    assert late.cost.flops < 1.05 * late.floor
    assert late.floor < 0.75 * made.floor
    assert late.bytes_per_image == 17 * 64 * 4 + 12
    assert row(tmp_path, "full").cost.flops > 1.3 * made.floor


def test_a_probe_on_cached_features_has_no_tower(tmp_path):
    made = row(tmp_path, "linear")
    assert made.floor is None
    assert made.bytes_per_image == 16 * 4 + 12


def test_seconds_are_medians_in_turns():
    calls = []
    times = measure.seconds([lambda: calls.append("a"), lambda: calls.append("b")], 3)
    assert calls == ["a", "b"] * 4
    assert all(t >= 0 for t in times)


def test_an_unknown_variant_is_refused():
    with pytest.raises(UserError, match=r"no variant 'ViT-B/31'.*ViT-B/32"):
        rows.random_weights("ViT-B/31", "float32")
