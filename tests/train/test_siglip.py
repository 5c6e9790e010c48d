"""Runs on a SigLIP: no class token, pooling by attention, a vocabulary of its own."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.conftest import GOLDEN, leaves_by_path, small_config
from tests.train.test_fit import Stop, _stopping
from vprompt_jax.export import files as export
from vprompt_jax.inference import adapted
from vprompt_jax.process.errors import UserError
from vprompt_jax.train import fit, loop

# Trained parameters: 34 pixels, 4 x 4 patches, 2 blocks of 48 channels, 10 classes.
PARAMETERS = {
    "tp": 0,
    "vp": 3 * (34**2 - 26**2),
    "ap": 16 * 48,
    "vpt_deep": 2 * 10 * 48,
    "lora": 2 * 2 * 2 * 4 * 48,  # blocks, query and value, two factors of rank 4
    "norm": 2 * 48 * (2 * 2 + 2),  # of the blocks, after them, and in the pooling
    "linear": 48 * 10 + 10,
}
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 34, 34, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(GOLDEN / "siglip_tiny", tmp_path / "siglip")


def config_of(folder, method):
    c = small_config(folder)
    c.method.name = method
    c.data.few_shot = 60
    c.optim.epochs, c.optim.batch_size = 2, 200
    return c


@pytest.mark.parametrize("method", PARAMETERS)
def test_a_run_trains_and_its_export_needs_no_tokenizer(folder, tmp_path, method):
    result = fit(config_of(folder, method), tmp_path / "run")
    assert result["trainable_parameters"] == PARAMETERS[method]
    assert result["zero_shot_accuracy"] is not None
    trained = adapted.load(tmp_path / "run")
    for name, leaf in leaves_by_path(trained.params).items():
        assert np.isfinite(leaf).all(), name
        assert np.abs(leaf).max() > 0, name
    logits = trained.logits(IMAGES)
    export.write(trained, tmp_path / "out")
    shutil.rmtree(folder)
    again = export.load(tmp_path / "out")
    assert again.resize == "squash_bilinear"
    np.testing.assert_array_equal(again.logits(IMAGES), logits)


def test_the_cached_prefix_gives_the_same_run(folder, tmp_path):
    params = []
    for mode in ("off", "on"):
        c = config_of(folder, "ap")
        c.ap.positions = (1,)
        c.cache.mode = mode
        fit(c, tmp_path / mode)
        params.append(leaves_by_path(adapted.load(tmp_path / mode).params))
    for name, expected in params[0].items():
        np.testing.assert_allclose(
            params[1][name], expected, rtol=0, atol=1e-3 * np.abs(expected).max()
        )


def test_an_interrupted_run_resumes(folder, tmp_path, monkeypatch):
    def config():
        c = config_of(folder, "vpt_deep")
        return c

    fit(config(), tmp_path / "whole")
    monkeypatch.setattr(loop.metrics, "make_writer", _stopping(loop.metrics.make_writer, at=5))
    with pytest.raises(Stop):
        fit(config(), tmp_path / "parts")
    monkeypatch.undo()
    fit(config(), tmp_path / "parts")
    whole, parts = (leaves_by_path(adapted.load(tmp_path / n).params) for n in ("whole", "parts"))
    for name, leaf in whole.items():
        np.testing.assert_array_equal(leaf, parts[name])


def test_recomputed_activations_change_nothing(folder, tmp_path):
    params = []
    for remat in ("none", "blocks"):
        c = config_of(folder, "vp")
        c.model.remat = remat
        fit(c, tmp_path / remat)
        params.append(leaves_by_path(adapted.load(tmp_path / remat).params))
    for name, expected in params[0].items():
        np.testing.assert_allclose(params[1][name], expected, rtol=1e-4, atol=1e-4)


def test_the_sigmoid_head_trains_with_siglips_loss(folder, tmp_path):
    results = {}
    for kind in ("text", "sigmoid"):
        c = config_of(folder, "vp")
        c.head.kind, c.optim.epochs = kind, 0
        results[kind] = fit(c, tmp_path / kind)
    assert results["text"]["test_accuracy"] == results["sigmoid"]["test_accuracy"]
    logits = {kind: adapted.load(tmp_path / kind).logits(IMAGES) for kind in results}
    bias = load_file(folder / "model.safetensors")["logit_bias"]
    np.testing.assert_allclose(logits["sigmoid"], logits["text"] + bias, rtol=1e-5)
    c.optim.epochs = 2
    fit(c, tmp_path / "trained")
    lines = (tmp_path / "trained/metrics.jsonl").read_text().splitlines()
    losses = [line["val/loss"] for line in map(json.loads, lines) if "val/loss" in line]
    # Ten classes, each decided by itself: at a start that knows nothing, far from log 10.
    assert losses[-1] < losses[0]


def test_a_linear_head_needs_no_tokenizer(folder, tmp_path):
    (folder / "tokenizer.json").unlink()
    result = fit(config_of(folder, "linear"), tmp_path / "run")
    assert result["zero_shot_accuracy"] is None
    assert json.loads((tmp_path / "run/result.json").read_text())["clip"]["text"] is None
    assert adapted.load(tmp_path / "run").logits(IMAGES).shape == (3, 10)
    with pytest.raises(UserError, match=r"tokenizer\.json .*beside the weights, or train a linear"):
        fit(config_of(folder, "vp"), tmp_path / "other")


def test_an_image_tower_alone_has_no_text_head(folder, tmp_path):
    tensors = load_file(folder / "model.safetensors")
    alone = {n: np.array(t) for n, t in tensors.items() if n.startswith("vision_model.")}
    save_file(alone, folder / "model.safetensors")
    with pytest.raises(UserError, match=r"no text tower: set config\.head\.kind=linear"):
        fit(config_of(folder, "vp"), tmp_path / "run")


def test_learned_context_is_clips(folder, tmp_path):
    with pytest.raises(UserError, match="context puts vectors between the tokens that start"):
        fit(config_of(folder, "coop"), tmp_path / "run")
