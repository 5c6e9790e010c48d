"""Finished runs are measured elsewhere: on new classes, other datasets, shifts of the domain."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.conftest import small_config
from tests.evaluate.test_evaluate import found
from vprompt_jax import data
from vprompt_jax.adaptation import adapt, load_clip
from vprompt_jax.config import resolve
from vprompt_jax.config.also import targets
from vprompt_jax.data import digits, embedded, halves
from vprompt_jax.evaluate import also
from vprompt_jax.inference import adapted
from vprompt_jax.launching.launch import launch
from vprompt_jax.process.errors import UserError
from vprompt_jax.report import protocols, results, tables
from vprompt_jax.schema.sections import DataSection
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


def rows_of(folder):
    """The columns of a table of predictions."""
    return pq.read_table(folder / "predictions.parquet").to_pydict()


def share_right(rows):
    return np.mean([a == b for a, b in zip(rows["label"], rows["predicted"], strict=True)])


def test_a_run_is_measured_on_the_classes_it_has_not_seen(runs, capsys):
    """Against the model built by hand for the new classes, and the stored predictions."""
    (line,) = also.measure(runs["a"])
    folder = runs["a"] / "elsewhere" / "new"
    kept = json.loads((folder / "evaluation.json").read_text())
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
    rows = rows_of(folder)
    assert set(rows["label"]) == set("56789")
    assert share_right(rows) == pytest.approx(kept["accuracy"])
    again = found(capsys, "--workdir", runs["a"], "--classes", "new")
    assert again["accuracy"] == pytest.approx(kept["accuracy"], abs=1e-3)


def test_it_is_measured_once_and_only_where_it_can_be(runs, monkeypatch, tmp_path):
    (line,) = also.measure(runs["linear"])
    assert line.startswith("new classes: not measured: the model does not know 5, 6")
    assert not (runs["linear"] / "elsewhere").exists()
    first = also.measure(runs["a"])
    monkeypatch.setattr(also.adapted, "load", None)
    assert also.measure(runs["a"]) == first
    (tmp_path / "config.json").write_text(json.dumps({"data": {"classes": "all"}}))
    assert also.measure(tmp_path) == []


@pytest.fixture(scope="module")
def elsewhere(tiny_path, tmp_path_factory):
    """Workdirs of a text head's and a linear head's run on all digits, measured on others."""
    root, made = tmp_path_factory.mktemp("elsewhere"), {}
    for method in ("tp", "linear"):
        c = small_config(tiny_path)
        c.method.name, c.data.few_shot, c.optim.epochs = method, 8, 1
        c.optim.batch_size, c.optim.warmup_steps = 40, 1
        c.eval.also = ("digits_grey", "letters", ":new", "letters:base")
        fit(c, root / method)
        made[method] = root / method, also.measure(root / method)
    return made


def test_a_run_is_measured_on_other_datasets_and_on_shifts(elsewhere):
    """Against the dataset's own images, and against a model made for its classes."""
    workdir, lines = elsewhere["tp"]
    names = ["digits_grey", "letters", "new", "letters-base"]
    labels = ["digits_grey", "letters", "new classes", "letters-base"]
    for name, called, line in zip(names, labels, lines, strict=True):
        kept = json.loads((workdir / "elsewhere" / name / "evaluation.json").read_text())
        assert line == f"{called}: {kept['accuracy']:.2%} on test"
        rows = rows_of(workdir / "elsewhere" / name)
        assert share_right(rows) == pytest.approx(kept["accuracy"])
        whole = embedded.load(kept["dataset"])
        expected = halves.kept(whole, kept["classes"])
        assert set(rows["label"]) == set(expected.class_names)
        assert set(rows["predicted"]) <= set(expected.class_names)  # no others are answers
        own = adapted.load(workdir)
        clip, variables = load_clip(own.config)
        texts = (expected.template,)
        made = adapt(own.config, clip, variables, expected.class_names, texts)
        model = adapted.Adapted(made, own.params, {}, own.result)
        images = expected.test.fetch(np.arange(50))
        taken = [expected.class_names[i] for i in model.logits(images).argmax(-1)]
        assert np.mean([a == b for a, b in zip(taken, rows["predicted"], strict=False)]) > 0.95


@pytest.mark.parametrize("swept", [False, True])
def test_images_that_are_not_there_are_missed_before_a_run_begins(
    tiny_config, tmp_path, capsys, swept
):
    """The entry stands in the last run of a sweep."""
    absent = ("eval.also", ("digits_gray",))
    if swept:
        tiny_config.sweep = (("one", (("seed", 0),)), ("two", (absent,)))
    else:
        tiny_config.eval.also = absent[1]
    with pytest.raises(SystemExit):
        launch(tiny_config, str(tmp_path / "runs"))
    assert "digits_gray" in capsys.readouterr().err
    assert not list(tmp_path.glob("runs/**/config.json"))


def test_a_linear_head_is_measured_where_it_knows_the_classes(elsewhere):
    workdir, lines = elsewhere["linear"]
    assert [line.partition(":")[2][:13] for line in lines[1::2]] == [" not measured"] * 2
    assert sorted(p.name for p in (workdir / "elsewhere").iterdir()) == ["digits_grey", "new"]
    whole = rows_of(workdir)
    rows = rows_of(workdir / "elsewhere" / "new")
    assert set(rows["predicted"]) <= set("56789")
    test = [i for i, split in enumerate(whole["split"]) if split == "test"]
    # Whoever was taken for a new class among all is so among the new ones.
    same = {whole["image"][i]: whole["predicted"][i] for i in test}
    kept = [(same[k], p) for k, p in zip(rows["image"], rows["predicted"], strict=True)]
    assert all(before == now for before, now in kept if before in "56789")


@pytest.mark.parametrize("also_on, message", [
    (("",), "holds an empty name"),
    (("digits_grey", "digits_grey"), "two entries are called 'digits_grey'"),
    ((":all",), "':all' is what the run is tested on"),
    (("digits",), "'digits' is what the run is tested on"),
    ((3,), "holds 3: it holds names"),
])  # fmt: skip
def test_mistaken_entries_are_refused(tiny_config, also_on, message):
    tiny_config.eval.also = also_on
    with pytest.raises(UserError, match=message):
        resolve(tiny_config)


def test_entries_are_names_or_paths(tiny_config):
    tiny_config.data.source, tiny_config.data.dir = "folder", "photos/mine"
    tiny_config.data.few_shot, tiny_config.data.classes = 4, "base"
    tiny_config.eval.also = ("photos/theirs", "photos/theirs:new")
    made = resolve(tiny_config)
    own, theirs, half = targets(made.data, made.eval.also)
    assert (own.folder, own.own, own.section.classes) == ("new", True, "new")
    assert own.section.few_shot == 4
    assert (theirs.folder, theirs.section.dir) == ("theirs", "photos/theirs")
    assert (theirs.section.few_shot, theirs.section.classes) == (None, "all")
    assert (half.folder, half.section.classes) == ("theirs-new", "new")
    tiny_config.data.source, tiny_config.data.name = "given", "mine"
    with pytest.raises(UserError, match="not given ones"):
        resolve(tiny_config)


def test_a_test_split_that_a_source_lacks_is_the_one_a_run_would_have(tmp_path):
    """EuroSAT's, say: cut from train, and not all of train."""
    for name, shade in (("cat", 10), ("dog", 200)):
        (tmp_path / name).mkdir()
        for i in range(10):
            pixels = np.full((8, 8, 3), shade + i, np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    section = DataSection(source="folder", dir=str(tmp_path))
    trained = data.load(section, "paper", 8)
    cut = data.labelled(section, "test", 8, cut=True)
    assert list(cut.test.keys) == list(trained.test.keys)
    assert len(data.labelled(section, "test", 8).test) == 20


def test_embedded_datasets_are_the_digits_seen_otherwise_and_letters(tmp_path):
    plain = digits.load().test
    images = plain.fetch(np.arange(6)).astype(float)
    for name in ("digits_grey", "digits_faint", "digits_outline"):
        other = embedded.load(name)
        assert (other.name, other.class_names) == (name, tuple("0123456789"))
        np.testing.assert_array_equal(other.test.labels, plain.labels)
        shown = other.test.fetch(np.arange(6))
        assert shown.dtype == np.uint8
        assert np.abs(shown - images).mean() > 5
    grey = embedded.load("digits_grey").test.fetch(np.arange(6))
    assert (grey == grey[..., :1]).all()
    faint = embedded.load("digits_faint").test.fetch(np.arange(6))
    np.testing.assert_allclose(faint.std((1, 2)), 0.4 * images.std((1, 2)), atol=0.5)
    letters = embedded.load("letters")
    assert len(letters.class_names) == 22
    assert np.bincount(letters.test.labels).tolist() == [40] * 22
    assert len(set(letters.test.keys)) == len(letters.test.keys)
    assert not set(letters.test.keys) & set(letters.train.keys)
    with pytest.raises(UserError, match=r"'cifar10' is no embedded dataset: those are digits"):
        embedded.load("cifar10")


def test_the_table_has_the_harmonic_mean_of_the_means(runs):
    for name in ("a", "b"):
        also.measure(runs[name])
    records = results.gather([runs["a"], runs["b"]])
    (grid,) = protocols.grids(results.group(records))
    stored = []
    for name in ("a", "b"):
        base, new = rows_of(runs[name]), rows_of(runs[name] / "elsewhere" / "new")
        on_test = [i for i, split in enumerate(base["split"]) if split == "test"]
        hits = np.mean([base["label"][i] == base["predicted"][i] for i in on_test])
        stored.append((100 * hits, 100 * share_right(new)))
    (base, new), errors = np.mean(stored, axis=0), np.std(stored, axis=0, ddof=1) / 2**0.5
    (row,) = grid.table().rows
    assert row[:2] == ["digits", "CoOp"]
    assert row[2] == f"{base:.1f} ± {errors[0]:.1f}"
    assert row[3] == f"{new:.1f} ± {errors[1]:.1f}"
    assert row[4].startswith(f"{2 / (1 / base + 1 / new):.1f} ± ")
    assert protocols.grids(results.group(results.gather([runs["linear"]]))) == []
    assert "elsewhere.new" in tables.as_csv(records).splitlines()[0]
