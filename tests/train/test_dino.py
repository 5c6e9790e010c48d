"""Runs on a DINOv2 and a DINOv3: registers, gates, rotations, and no texts."""

import numpy as np
import pytest

from tests.conftest import GOLDEN, leaves_by_path, small_config
from vprompt_jax.export import files as export
from vprompt_jax.inference import adapted
from vprompt_jax.process.errors import UserError
from vprompt_jax.train import fit

LINEAR = 32 * 10 + 10
# Trained parameters: 30 pixels (DINOv2) or 28 (DINOv3), 4 x 4 patches, 2 blocks of 32 channels.
PARAMETERS = {
    "ap": ((4 + 16) * 32 + LINEAR, (3 + 16) * 32 + LINEAR),
    "vpt_deep": (2 * 10 * 32 + LINEAR,) * 2,
    "e2vpt": (2 * 5 * 32 + 2 * 5 * 32 + LINEAR,) * 2,
    "lora": (2 * 2 * 2 * 4 * 32 + LINEAR,) * 2,
    # Of the patches, two norms, the projections of each block, and the last norm.
    "bitfit": (
        32 + 2 * (2 * 32 + 3 * 32 + 32 + 2 * 48 + 32) + 32 + LINEAR,
        32 + 2 * (2 * 32 + 2 * 32 + 32 + 2 * 40 + 32) + 32 + LINEAR,
    ),
}
NAMES = ("dinov2_tiny", "dinov3_tiny")


def config_of(name, method):
    c = small_config(GOLDEN / name)
    c.method.name = method
    c.head.kind = "linear"
    c.data.few_shot = 60
    c.optim.epochs, c.optim.batch_size = 1, 200
    return c


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", PARAMETERS)
def test_a_run_trains_and_its_export_gives_the_same(tmp_path, name, method):
    result = fit(config_of(name, method), tmp_path / "run")
    assert result["trainable_parameters"] == PARAMETERS[method][NAMES.index(name)]
    assert result["zero_shot_accuracy"] is None
    trained = adapted.load(tmp_path / "run")
    for path, leaf in leaves_by_path(trained.params).items():
        assert np.isfinite(leaf).all(), path
    side = trained.model.clip.config.image_resolution
    images = np.random.default_rng(0).integers(0, 256, (3, side, side, 3), dtype=np.uint8)
    logits = trained.logits(images)
    export.write(trained, tmp_path / "out")
    np.testing.assert_array_equal(export.load(tmp_path / "out").logits(images), logits)


@pytest.mark.parametrize("name", NAMES)
def test_the_cached_prefix_gives_the_same_run(tmp_path, name):
    params = []
    for mode in ("off", "on"):
        c = config_of(name, "ap")
        c.ap.positions = (1,)
        c.cache.mode = mode
        fit(c, tmp_path / mode)
        params.append(leaves_by_path(adapted.load(tmp_path / mode).params))
    for path, expected in params[0].items():
        scale = np.abs(expected).max()
        np.testing.assert_allclose(params[1][path], expected, rtol=0, atol=1e-3 * scale)


@pytest.mark.parametrize("name", NAMES)
def test_recomputed_activations_change_nothing(tmp_path, name):
    params = []
    for remat in ("none", "blocks"):
        c = config_of(name, "vpt_deep")
        c.model.remat = remat
        fit(c, tmp_path / remat)
        params.append(leaves_by_path(adapted.load(tmp_path / remat).params))
    for path, expected in params[0].items():
        np.testing.assert_allclose(params[1][path], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_text_head_is_refused_in_one_line(tmp_path, name):
    c = config_of(name, "vp")
    c.head.kind = "text"
    with pytest.raises(UserError, match=r"no text tower: set config\.head\.kind=linear") as error:
        fit(c, tmp_path / "run")
    assert "\n" not in str(error.value)
