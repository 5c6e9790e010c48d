"""Prefix caching gives the same run; where it does not fit it says so; the L-BFGS probe uses it."""

import numpy as np
import psutil
import pytest
from scipy.special import log_softmax

from tests.conftest import leaves_by_path
from vprompt_jax import data
from vprompt_jax.config import resolve
from vprompt_jax.heads.mapping import frequency_map, random_map
from vprompt_jax.inference import adapted
from vprompt_jax.process.errors import UserError
from vprompt_jax.train import fit
from vprompt_jax.train.cache import with_prefix
from vprompt_jax.train.training import assemble


def ap_config(tiny_config, **keys):
    c = tiny_config
    c.method.name = "ap"
    c.ap.positions = (1,)
    c.ap.learning_rate = 0.5
    c.mask.region = c.mask.width = c.mask.learning_rate = None
    c.optim.epochs = 1
    with c.unlocked():
        c.update_from_flattened_dict(keys)
    return c


def test_cached_and_uncached_runs_agree(tiny_config, tmp_path):
    results, params = {}, {}
    for mode, storage in (("off", "memory"), ("on", "memory"), ("on", "disk")):
        name = f"{mode}-{storage}"
        keys = {"cache.mode": mode, "cache.storage": storage}
        results[name] = fit(ap_config(tiny_config, **keys), tmp_path / name)
        params[name] = leaves_by_path(adapted.load(tmp_path / name).params)
    for name in ("on-memory", "on-disk"):
        for key in ("test_accuracy", "zero_shot_accuracy", "val_accuracy_best"):
            assert results[name][key] == pytest.approx(results["off-memory"][key], abs=1e-3)
        for path, expected in params["off-memory"].items():
            assert np.abs(expected).max() > 0
            scale = np.abs(expected).max()
            assert np.abs(params[name][path] - expected).max() < 1e-3 * scale
    assert not list(tmp_path.rglob("activations-*"))


def test_half_precision_storage(tiny_config, tmp_path):
    run = assemble(resolve(ap_config(tiny_config, **{"cache.dtype": "bfloat16"})))
    cached = with_prefix(run.adaptation, run.dataset, tmp_path)
    assert [split.content for _, split in cached.splits()] == ["activation"] * 3
    rows = np.arange(5)
    got = cached.val.fetch(rows)
    assert got.dtype.name == "bfloat16"
    assert got.shape == (5, 17, 64)
    assert run.adaptation.model.entry == 1
    exact = run.adaptation.model.apply(
        run.adaptation.frozen, run.dataset.val.fetch(rows), method="activation"
    )
    assert np.abs(got.astype(np.float32) - exact).max() < 0.01 * np.abs(exact).max()


def test_what_does_not_fit_goes_on_without_or_is_refused(
    tiny_config, tmp_path, monkeypatch, capsys
):
    memory = psutil.virtual_memory()._replace(available=1000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    run = assemble(resolve(ap_config(tiny_config)))
    assert with_prefix(run.adaptation, run.dataset, tmp_path) is run.dataset
    assert "not cached: activations at position 1" in capsys.readouterr().err
    run = assemble(resolve(ap_config(tiny_config, **{"cache.mode": "on"})))
    with pytest.raises(UserError, match=r"cache\.storage=disk"):
        with_prefix(run.adaptation, run.dataset, tmp_path)


def test_prompts_on_pixels_cannot_be_cached(tiny_config, tmp_path):
    tiny_config.cache.mode = "on"
    with pytest.raises(UserError, match="nothing to cache"):
        fit(tiny_config, tmp_path / "run")


def test_the_lbfgs_probe_beats_the_gradient_probe_on_train(tiny_config, tmp_path):
    c = ap_config(tiny_config)
    c.method.name, c.ap.positions = "linear", ()
    by_gradient = fit(c, tmp_path / "sgd")
    c.head.solver = "lbfgs"
    solved = fit(c, tmp_path / "lbfgs")
    assert solved["trainable_parameters"] == by_gradient["trainable_parameters"] == 17 * 10
    losses = {}
    for name in ("sgd", "lbfgs"):
        model = adapted.load(tmp_path / name)
        train = data.load(model.config.data, model.config.protocol, model.resolution).train
        logits = log_softmax(model.logits(train.fetch(np.arange(len(train)))), axis=-1)
        losses[name] = -logits[np.arange(len(train)), train.labels].mean()
    assert losses["lbfgs"] < losses["sgd"]
    params = adapted.load(tmp_path / "lbfgs").params
    assert np.abs(params["head"]["dense"]["kernel"]).max() > 0


def test_the_lbfgs_probe_is_for_the_head_alone(tiny_config, tmp_path):
    c = ap_config(tiny_config, **{"head.kind": "linear", "head.solver": "lbfgs"})
    with pytest.raises(
        UserError, match=r"learns the head alone, without ap: set config\.ap\.positions=\(\)"
    ):
        fit(c, tmp_path / "run")


def test_frequency_map_by_a_plain_loop():
    rng = np.random.default_rng(0)
    for _ in range(20):
        counts = rng.integers(0, 9, (4, 7)).astype(float)
        left, expected = {(c, k): counts[c, k] for c in range(4) for k in range(7)}, {}
        while left:
            c, k = max(left, key=left.get)
            expected[c] = k
            left = {(a, b): n for (a, b), n in left.items() if a != c and b != k}
        np.testing.assert_array_equal(frequency_map(counts), [expected[c] for c in range(4)])


def test_random_map_is_one_to_one_and_seeded():
    first = random_map(0, 10, 20)
    assert len(set(first)) == 10
    np.testing.assert_array_equal(first, random_map(0, 10, 20))
    assert (first != random_map(1, 10, 20)).any()
