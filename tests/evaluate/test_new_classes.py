"""Base-to-new: halves of the classes, a run on one of them measured on the other, and its table."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.conftest import small_config
from tests.evaluate.test_evaluate import found
from vprompt_jax.adaptation import adapt, load_clip
from vprompt_jax.config import resolve
from vprompt_jax.data import digits, halves
from vprompt_jax.evaluate import new_classes
from vprompt_jax.inference import adapted
from vprompt_jax.process.errors import UserError
from vprompt_jax.report import results, tables
from vprompt_jax.train import fit


def test_halves_are_the_first_and_the_second_half_of_the_classes():
    whole = digits.load()
    base, new = (halves.kept(whole, which) for which in ("base", "new"))
    assert halves.kept(whole, "all") is whole
    assert (base.class_names, new.class_names) == (tuple("01234"), tuple("56789"))
    for name, split in whole.splits():
        parts = [dict(half.splits())[name] for half in (base, new)]
        assert sum(map(len, parts)) == len(split)
        for part, first in zip(parts, (0, 5), strict=True):
            chosen = np.flatnonzero((split.labels >= first) & (split.labels < first + 5))[:40]
            np.testing.assert_array_equal(part.labels[:40] + first, split.labels[chosen])
            np.testing.assert_array_equal(part.fetch(np.arange(40)), split.fetch(chosen))
            assert list(part.keys[:40]) == [split.keys[i] for i in chosen]


def test_an_odd_class_is_a_base_class_and_a_half_needs_two():
    whole = digits.load()
    names = tuple("01234")
    five = halves.kept(whole, "base")
    assert halves.kept(five, "base").class_names == names[:3]
    three = halves.kept(five, "base")
    with pytest.raises(UserError, match="has 3 classes, and a half needs two or more"):
        halves.kept(three, "new")


@pytest.fixture(scope="module")
def runs(tiny_path, tmp_path_factory):
    """Workdirs of runs on the base classes: two seeds of CoOp, and a linear head."""
    root, made = tmp_path_factory.mktemp("base"), {}
    for name, method, seed in (("a", "coop", 0), ("b", "coop", 1), ("linear", "linear", 0)):
        c = small_config(tiny_path)
        c.method.name, c.seed, c.data.classes, c.data.few_shot = method, seed, "base", 8
        c.optim.epochs, c.optim.batch_size, c.optim.warmup_steps = 1, 20, 1
        if method == "coop":
            c.context.tokens, c.context.learning_rate = 4, 0.1
        fit(c, root / name)
        made[name] = root / name
    return made


def test_a_run_is_measured_on_the_classes_it_has_not_seen(runs, capsys):
    """Against the model built by hand for the new classes, and the stored predictions."""
    line = new_classes.measure(runs["a"])
    kept = json.loads((runs["a"] / "new" / "evaluation.json").read_text())
    assert line == f"new classes: {kept['accuracy']:.2%} on test"
    learned = adapted.load(runs["a"])
    assert learned.class_names == tuple("01234")
    clip, variables = load_clip(learned.config)
    texts = learned.result["templates"]
    made = adapt(resolve(learned.config.as_dict()), clip, variables, tuple("56789"), texts)
    model = adapted.Adapted(made, learned.params, {}, learned.result)
    test = halves.kept(digits.load(), "new").test
    logits = model.logits(test.fetch(np.arange(len(test))))
    assert kept["images"] == len(test)
    assert kept["accuracy"] == pytest.approx((logits.argmax(-1) == test.labels).mean(), abs=1e-3)
    rows = pq.read_table(runs["a"] / "new" / "predictions.parquet").to_pydict()
    assert set(rows["label"]) == set("56789")
    hits = [a == b for a, b in zip(rows["label"], rows["predicted"], strict=True)]
    assert np.mean(hits) == pytest.approx(kept["accuracy"])
    again = found(capsys, "--workdir", runs["a"], "--classes", "new")
    assert again["accuracy"] == pytest.approx(kept["accuracy"], abs=1e-3)


def test_it_is_measured_once_and_only_where_it_can_be(runs, monkeypatch, tiny_path, tmp_path):
    assert new_classes.measure(runs["linear"]).startswith("new classes: not measured")
    assert not (runs["linear"] / "new").exists()
    first = new_classes.measure(runs["a"])
    monkeypatch.setattr(new_classes.adapted, "load", None)
    assert new_classes.measure(runs["a"]) == first
    (tmp_path / "config.json").write_text(json.dumps({"data": {"classes": "all"}}))
    assert new_classes.measure(tmp_path) == ""


def test_the_table_has_the_harmonic_mean_of_the_means(runs):
    for name in ("a", "b"):
        new_classes.measure(runs[name])
    records = results.gather([runs["a"], runs["b"]])
    (row,) = tables.base_to_new(results.group(records)).rows
    stored = []
    for name in ("a", "b"):
        base = pq.read_table(runs[name] / "predictions.parquet").to_pydict()
        new = pq.read_table(runs[name] / "new" / "predictions.parquet").to_pydict()
        on_test = [i for i, split in enumerate(base["split"]) if split == "test"]
        hits = np.mean([base["label"][i] == base["predicted"][i] for i in on_test])
        others = [a == b for a, b in zip(new["label"], new["predicted"], strict=True)]
        stored.append((100 * hits, 100 * np.mean(others)))
    (base, new), deviations = np.mean(stored, axis=0), np.std(stored, axis=0, ddof=1)
    assert row[1] == f"{base:.1f} ± {deviations[0]:.1f}"
    assert row[2] == f"{new:.1f} ± {deviations[1]:.1f}"
    assert row[3] == f"{2 / (1 / base + 1 / new):.1f}"
    assert tables.base_to_new(results.group(results.gather([runs["linear"]]))) is None
    assert "new_accuracy" in tables.as_csv(records).splitlines()[0]
