"""Runs whose part a solver finds: from the start to the run's folder, and what is used of it."""

import json

import numpy as np
import pytest

from tests.conftest import GOLDEN
from tests.train.test_fit import NAMES, TIMES, Stop, _stopping
from vprompt_jax.data import load as load_data
from vprompt_jax.evaluate import elsewhere
from vprompt_jax.export import files as export
from vprompt_jax.heads import caching
from vprompt_jax.inference import adapted
from vprompt_jax.parts import Examples
from vprompt_jax.process.errors import Interrupted, UserError
from vprompt_jax.train import fit, loop, solve
from vprompt_jax.train.interrupt import Interrupts

IMAGES = np.random.default_rng(2).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)


@pytest.fixture
def config(tiny_config):
    """Two epochs of three steps on 12 images of each class, of which 8 are cached."""
    tiny_config.data.few_shot, tiny_config.optim.batch_size = 12, 40
    tiny_config.optim.warmup_steps, tiny_config.optim.average = 1, 0.5
    tiny_config.method.name, tiny_config.head.per_class = "tip_adapter_f", 8
    return tiny_config


def features_of(model, name):
    """The frozen tower's features of a split of a run."""
    c = model.config
    split = dict(load_data(c.data, c.protocol, model.resolution).splits())[name]
    images = split.fetch(np.arange(len(split)))
    bound = model.model.bind(model.variables)
    return Examples(np.asarray(bound.features(bound.pixels(images))), split.labels)


def test_a_cache_is_filled_and_nothing_trains(config, tmp_path, capsys):
    config.method.name = "tip_adapter"
    result = fit(config, tmp_path / "run")
    assert (result["trainable_parameters"], result["steps"]) == (0, 0)
    assert "80 of 120 training images are cached" in capsys.readouterr().err
    model = adapted.load(tmp_path / "run")
    keys, sizes = caching.cache_of(features_of(model, "train"), 10, 8)
    np.testing.assert_array_equal(model.assigned["cache_sizes"], sizes)
    np.testing.assert_allclose(model.assigned["cache_keys"], keys, atol=1e-5)
    facts = result["cache"]
    assert (facts["images"], facts["left_out"]) == (80, 40)
    assert facts["alpha"] == pytest.approx(float(model.assigned["cache_alpha"]))
    assert facts["alpha"] != 1.17
    test = load_data(model.config.data, "val", model.resolution).test
    right = model.logits(test.fetch(np.arange(len(test)))).argmax(-1) == test.labels
    assert right.mean() == pytest.approx(result["test_accuracy"], abs=1e-3)
    assert result["val_accuracy_best"] == result["val"]["accuracy"]
    export.write(model, tmp_path / "export")
    again = export.load(tmp_path / "export").logits(IMAGES)
    np.testing.assert_allclose(again, model.logits(IMAGES), rtol=1e-4, atol=1e-5)
    # The cache holds images of its own classes, also where there are as many others.
    others = [f"thing {i}" for i in range(10)]
    with pytest.raises(UserError, match=r"config\.head learned belongs to its own classes"):
        elsewhere.fitted(model, others)
    # Finished but for its result: nothing is found a second time.
    (tmp_path / "run" / "result.json").unlink()
    assert fit(config, tmp_path / "run")["cache"] == facts


def test_trained_keys_start_at_the_cache_and_the_search_comes_last(config, tmp_path):
    config.optim.epochs, config.method.name = 0, "tip_adapter_f"
    start = fit(config, tmp_path / "start")
    assert start["trainable_parameters"] == 10 * 8 * 16
    at_start = adapted.load(tmp_path / "start")
    keys, _ = caching.cache_of(features_of(at_start, "train"), 10, 8)
    np.testing.assert_allclose(at_start.params["head"]["keys"], keys, atol=1e-5)
    config.optim.epochs = 2
    config.head.learning_rate = 0.03
    result = fit(config, tmp_path / "run")
    model, best = adapted.load(tmp_path / "run"), adapted.load(tmp_path / "run", best=True)
    assert np.abs(model.params["head"]["keys"] - keys).max() > 1e-3
    for found in (model, best):
        val, head = features_of(found, "val"), found.config.parts["head"]
        chosen = right_on(found, val)
        for alpha in caching.grid(0.1, head.alpha_max, 20)[::4]:
            for beta in caching.grid(0.1, head.beta_max, 200)[::40]:
                assert right_on(found, val, cache_alpha=alpha, cache_beta=beta) <= chosen
    assert result["val_accuracy_best"] == pytest.approx(chosen / 40)
    assert result["val_accuracy_best"] >= result["val"]["accuracy"]


def right_on(model, examples, **arrays):
    """How many features a model's head, with some arrays changed, gives the right class."""
    variables = model.variables | {"assigned": model.variables["assigned"] | arrays}
    logits, _ = model.model.apply(variables, examples.features, None, method="_logits")
    return int((logits.argmax(-1) == examples.labels).sum())


def test_without_val_alpha_and_beta_stay_the_configs(config, tmp_path):
    config.protocol, config.optim.epochs = "paper", 1
    for method in ("tip_adapter", "tip_adapter_f"):
        config.method.name = method
        result = fit(config, tmp_path / method)
        assert (result["cache"]["alpha"], result["cache"]["beta"]) == (1.17, 1)
        assert result["val_accuracy_best"] is None


@pytest.mark.parametrize("by_signal", [True, False])
def test_an_interrupted_run_ends_as_one_that_was_not(config, tmp_path, monkeypatch, by_signal):
    """Stopped by SIGTERM, or by an error while the last step is evaluated."""
    fit(config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        if by_signal:
            patch.setattr(Interrupts, "asked", lambda self, step: step == 2)
        else:
            patch.setattr(loop.metrics, "make_writer", _stopping(loop.metrics.make_writer, at=6))
        with pytest.raises(Interrupted if by_signal else Stop):
            fit(config, tmp_path / "parts")
    monkeypatch.setattr(solve, "started", None)  # the start is in the save
    fit(config, tmp_path / "parts")
    for best in (False, True):
        one, other = (adapted.load(tmp_path / n, best=best) for n in NAMES)
        np.testing.assert_array_equal(one.params["head"]["keys"], other.params["head"]["keys"])
        assert one.assigned.keys() == other.assigned.keys()
        for name, array in one.assigned.items():
            np.testing.assert_array_equal(array, other.assigned[name])
    # Once more, after the last save: the search is not made again.
    monkeypatch.setattr(solve, "finished", None)
    (tmp_path / "parts" / "result.json").unlink()
    fit(config, tmp_path / "parts")
    whole, parts = (json.loads((tmp_path / n / "result.json").read_text()) for n in NAMES)
    assert whole | dict.fromkeys(TIMES) == parts | dict.fromkeys(TIMES)


def test_a_run_that_val_ends_is_finished_once(config, tmp_path, monkeypatch, capsys):
    config.head.learning_rate, config.optim.epochs, config.optim.patience = 0.0, 6, 2
    result = fit(config, tmp_path)
    assert result["last_step"] == 9
    assert "val was not better for 2 evaluations" in capsys.readouterr().err
    assert result["cache"]["alpha"] != 1.17
    monkeypatch.setattr(solve, "finished", None)
    (tmp_path / "result.json").unlink()
    again = fit(config, tmp_path)
    assert result | dict.fromkeys(TIMES) == again | dict.fromkeys(TIMES)


def test_features_that_do_not_fit_are_refused(config, tmp_path, monkeypatch):
    import psutil

    memory = psutil.virtual_memory()._replace(available=1000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    with pytest.raises(UserError, match=r"tip_adapter_f needs .* set config\.cache\.storage=disk"):
        fit(config, tmp_path)


def test_a_map_that_is_assigned_without_any_step_is_what_predicts(config, tmp_path):
    config.model.checkpoint = str(GOLDEN / "hf_vit_tiny")
    config.method.name, config.head.kind, config.head.mapping = "tp", "mapping", "bayesian"
    config.head.per_class = None
    result = fit(config, tmp_path)
    model = adapted.load(tmp_path)
    initial = model.adaptation.initial_assigned()["label_weights"]
    assert np.abs(model.assigned["label_weights"] - initial).max() > 0.1
    test = load_data(model.config.data, "val", model.resolution).test
    right = model.logits(test.fetch(np.arange(len(test)))).argmax(-1) == test.labels
    assert right.mean() == pytest.approx(result["test_accuracy"], abs=1e-3)
