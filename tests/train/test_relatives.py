"""Runs on CLIP's relatives: CoCa (with EVA02-E's norms behind the branches), EVA, PE-Core."""

import dataclasses
import json

import numpy as np
import pytest

from tests.conftest import TINY, leaves_by_path, random_tensors, small_config
from vprompt_jax.clip.checkpoints import formats
from vprompt_jax.export import files as export
from vprompt_jax.inference import adapted
from vprompt_jax.train import fit

# By family: what its towers have that CLIP's do not.
IMAGE = {
    "coca": {
        "pooling": "query", "pool_heads": 2, "pool_class": True, "final_norm": "after",
        "post_norm": True,
    },
    "eva": {
        "patch_bias": True, "pre_norm": False, "qkv_bias": "no_key", "projection_bias": True,
        "activation": "silu", "gated_mlp": True, "inner_norms": True, "rope": "pairs",
        "rope_base": 1e4, "rope_reference": 4,
    },
    "pe": {
        "pooling": "attention", "pool_heads": 2, "pool_mlp_width": 256, "pool_class": True,
        "projection_bias": True, "rope": "pairs", "rope_base": 1e4, "rope_reference": 4,
        "rope_offset": 1.0, "rope_order": "columns",
    },
}  # fmt: skip
TEXT = {"coca": {"pooling": "class"}}
METHODS = ("adavipro", "ap", "vpt_deep", "norm", "lora", "coop")
# Trained parameters: 32 pixels, a class token and 4 x 4 patches, 2 blocks of 64 channels, features
# of 16, texts of 64.
COUNTS = {"ap": 17 * 64, "vpt_deep": 2 * 10 * 64, "coop": 16 // 4 * 64}
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """A file of random weights by family."""
    folder = tmp_path_factory.mktemp("towers")
    paths = {}
    for family, fields in IMAGE.items():
        vision = dataclasses.replace(TINY.vision, **fields)
        text = dataclasses.replace(TINY.text, **TEXT.get(family, {}))
        config = dataclasses.replace(TINY, vision=vision, text=text)
        paths[family] = folder / f"{family}.safetensors"
        formats.write_safetensors(paths[family], random_tensors(config), {})
        clip = json.dumps({"clip": dataclasses.asdict(config)})
        paths[family].with_suffix(".json").write_text(clip)
    return paths


def config_of(path, method):
    c = small_config(path)
    c.method.name = method
    c.data.few_shot = 60
    c.optim.epochs, c.optim.batch_size = 1, 200
    if method in ("coop", "cocoop"):
        c.context.tokens = 4
        c.context.start = ""
    return c


def learned(config, workdir):
    fit(config, workdir)
    return leaves_by_path(adapted.load(workdir).params)


def runs():
    for family in IMAGE:
        for method in METHODS:
            light = method in ("adavipro", "ap")
            yield pytest.param(family, method, marks=() if light else pytest.mark.slow)
    for method in ("cocoop", "maple"):  # they change what CoCa's mask of texts sees
        yield pytest.param("coca", method, marks=pytest.mark.slow)


@pytest.mark.parametrize("family, method", list(runs()))
def test_a_run_trains_and_its_export_gives_the_same(paths, tmp_path, family, method):
    result = fit(config_of(paths[family], method), tmp_path / "run")
    assert result["trainable_parameters"] == COUNTS.get(method, result["trainable_parameters"])
    assert result["zero_shot_accuracy"] is not None
    trained = adapted.load(tmp_path / "run")
    for name, leaf in leaves_by_path(trained.params).items():
        assert np.isfinite(leaf).all(), name
        assert np.abs(leaf).max() > 0, name
    logits = trained.logits(IMAGES)
    export.write(trained, tmp_path / "out")
    again = export.load(tmp_path / "out").logits(IMAGES)
    np.testing.assert_allclose(again, logits, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("family", IMAGE)
def test_the_cached_prefix_gives_the_same_run(paths, tmp_path, family):
    params = []
    for mode in ("off", "on"):
        c = config_of(paths[family], "ap")
        c.ap.positions = (1,)
        c.cache.mode = mode
        params.append(learned(c, tmp_path / mode))
    for name, expected in params[0].items():
        scale = np.abs(expected).max()
        np.testing.assert_allclose(params[1][name], expected, rtol=0, atol=1e-3 * scale)


@pytest.mark.slow
@pytest.mark.parametrize("family", IMAGE)
def test_recomputed_activations_change_nothing(paths, tmp_path, family):
    params = []
    for remat in ("none", "blocks"):
        c = config_of(paths[family], "vp")
        c.model.remat = remat
        params.append(learned(c, tmp_path / remat))
    for name, expected in params[0].items():
        np.testing.assert_allclose(params[1][name], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.usefixtures("dtypes_promote")
@pytest.mark.parametrize("family", IMAGE)
def test_a_run_in_bfloat16(paths, tmp_path, family):
    c = config_of(paths[family], "vp")
    c.model.dtype = "bfloat16"
    for name, leaf in learned(c, tmp_path / "run").items():
        assert np.isfinite(leaf).all(), name
