"""The protocols of few shots, base and new classes, and other test sets, on stand-ins."""

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

import vprompt_jax as vp
from tests.conftest import small_config
from tests.data import stand_ins
from tests.data.stand_ins import CLASSES, COUNTS, IDS, NAMES, PART, as_coop, as_hub, as_tfds
from tests.evaluate.test_evaluate import found, refused
from vprompt_jax import config as config_lib
from vprompt_jax import data
from vprompt_jax.data import catalogue
from vprompt_jax.data.info import DatasetInfo
from vprompt_jax.evaluate.__main__ import main
from vprompt_jax.process.errors import UserError
from vprompt_jax.train import fit
from vprompt_jax.train.result import of_splits

FORMS = {"coop": as_coop, "hub": as_hub, "tfds": as_tfds}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Values of `config.data`, by form."""
    root = tmp_path_factory.mktemp("stand_ins")
    return {form: make(root / form) for form, make in FORMS.items()}


def loaded(place, **keys):
    config = config_lib.default_config()
    config.data.update({**place, **keys})
    resolved = config_lib.resolve(config)
    return data.load(resolved.data, resolved.protocol, 8)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_has_the_same_pictures(places, form):
    made = loaded(places[form])
    assert made.class_names == (tuple(sorted(CLASSES)) if form == "hub" else CLASSES)
    assert made.cut == ()
    for split, part in made.splits():
        expected = {
            (name, stand_ins.pixels(split, name, i).tobytes())
            for name, i in stand_ins.examples(split)
        }
        names = [made.class_names[label] for label in part.labels]
        images = part.fetch(np.arange(len(part)))
        assert {(n, x.tobytes()) for n, x in zip(names, images, strict=True)} == expected
        assert len(part) == len(expected)


def test_a_split_file_deals_what_tfds_prepared(places, monkeypatch):
    """By TFDS's file names, to the splits that the folder has."""
    row = DatasetInfo(
        "six colours", 6, "stand_in:1.*.*", stand_ins.USUAL, None, key="file_name", texts="imagenet"
    )
    monkeypatch.setitem(catalogue.CATALOGUE, "stand_in", row)
    coop = places["coop"]
    dealt = loaded(places["tfds"], split_file=coop["split_file"])
    assert dealt.fingerprint == loaded(coop).fingerprint
    assert dealt.split_file == loaded(coop).split_file


@pytest.mark.parametrize("form", FORMS)
def test_few_shots(places, form):
    """1, 2, 4, 8, 16 for training and at most 4 for val, nested, and others with another seed."""
    whole, before = loaded(places[form]), set()
    for shots in (1, 2, 4, 8, 16):
        made = loaded(places[form], few_shot=shots)
        assert np.bincount(made.train.labels).tolist() == [shots] * len(CLASSES)
        assert np.bincount(made.val.labels).tolist() == [min(shots, 4)] * len(CLASSES)
        assert set(made.train.keys) > before
        before = set(made.train.keys)
        assert before < set(whole.train.keys)
        assert made.test.digest == whole.test.digest
        other = loaded(places[form], few_shot=shots, split_seed=1)
        assert other.train.digest != made.train.digest
        assert other.test.digest == whole.test.digest


@pytest.mark.parametrize("form", FORMS)
def test_base_and_new_classes_follow_the_labels(places, form):
    names = loaded(places[form]).class_names
    base, new = (loaded(places[form], classes=which, few_shot=4) for which in ("base", "new"))
    assert (base.class_names, new.class_names) == (names[:3], names[3:])
    if form == "coop":  # as the split file numbers them, not by the alphabet
        assert base.class_names == ("hen", "tench", "ostrich")
    for half in (base, new):
        assert [len(s) for _, s in half.splits()] == [3 * 4, 3 * 4, 3 * COUNTS["test"]]


def test_a_rows_templates_stand_beside_a_split_files_classes(places):
    """CoOp's Caltech101 has two classes fewer than TFDS's."""
    made = loaded(places["coop"], name="caltech101")
    assert (made.name, made.class_names) == ("caltech101", CLASSES)
    assert len(made.ensemble) == 34


def test_images_that_a_split_file_lists_in_vain(tmp_path):
    place = as_coop(tmp_path)
    for i in (3, 5):
        (tmp_path / "images" / stand_ins.file_name("test", "hen", i - 3)).unlink()
    total = sum(COUNTS.values()) * len(CLASSES)
    message = rf"2 of the {total} images of split_zhou_StandIn\.json are not in .*images: "
    with pytest.raises(UserError, match=message + r".*config\.data\.dir(.|\n)*test0\.png"):
        loaded(place)
    with pytest.raises(UserError, match=rf"{total} of the {total} images(.|\n)*and {total - 20} "):
        loaded(place, dir=str(tmp_path))
    made = loaded(place, on_bad_image="skip")
    assert len(made.skipped) == 2
    assert len(made.test) == COUNTS["test"] * len(CLASSES) - 2


@pytest.fixture(scope="module")
def runs(places, tiny_path, tmp_path_factory):
    """Workdirs: a text head on CoOp's base classes, a linear head on all classes."""
    made = {}
    for name, method, keys in (
        ("base", "vp", {"classes": "base", "few_shot": 16}), ("linear", "linear", {}),
    ):  # fmt: skip
        c = small_config(tiny_path)
        c.data.few_shot = None
        c.data.update({**places["coop"], **keys})
        c.method.name, c.optim.epochs, c.eval.every_epochs = method, 20, 20
        c.optim.batch_size, c.optim.warmup_steps = 24, 1
        made[name] = tmp_path_factory.mktemp("runs") / name
        fit(c, made[name])
    return made


def options(place, *more):
    """Of `vprompt evaluate`, for images somewhere else."""
    given = [f"--{key}={place[key]}" for key in ("source", "name", "dir") if key in place]
    return [*given, *(f"--set=split_file={place[k]}" for k in place if k == "split_file"), *more]


def test_a_result_says_what_it_is_of(runs, places):
    result = json.loads((runs["base"] / "result.json").read_text())
    dataset = loaded(places["coop"], classes="base", few_shot=16)
    assert result["dataset_fingerprint"] == dataset.fingerprint
    assert result["split_hashes"] == {name: split.digest for name, split in dataset.splits()}
    file = Path(places["coop"]["split_file"])
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    assert result["split_file"] == {"name": "split_zhou_StandIn.json", "sha256": sha256}
    assert result["splits_cut"] == []
    model = vp.load(runs["base"])
    assert result["config_hash"] == model.config.fingerprint
    inputs = json.loads((runs["base"] / "inputs.json").read_text())
    assert result["weights_hash"] == inputs["sums"]["weights"]
    assert result["versions"].keys() >= {"python", "jax", "numpy", "vprompt_jax"}


def test_what_was_cut_is_said(places):
    whole = {key: value for key, value in places["coop"].items() if key != "split_file"}
    assert loaded(whole).cut == ("test", "val")
    config = config_lib.default_config()
    config.data.update(whole)
    config.protocol = "paper"
    resolved = config_lib.resolve(config)
    made = data.load(resolved.data, resolved.protocol, 8)
    assert of_splits(made)["splits_cut"] == ["test"]
    assert of_splits(made)["split_file"] is None


def test_the_new_classes_of_a_split_file(runs, places, capsys, tmp_path):
    """Once the run's own, and once those of TFDS's copy, whose labels are alike."""
    own = found(capsys, "--workdir", runs["base"], "--classes=new", "--out", tmp_path / "own")
    there = found(capsys, "--workdir", runs["base"], "--classes=new", *options(places["tfds"]))
    assert own["images"] == there["images"] == 3 * COUNTS["test"]
    assert own["accuracy"] == there["accuracy"]
    assert own["loss"] == pytest.approx(there["loss"], rel=1e-5)
    kept = json.loads((tmp_path / "own" / "evaluation.json").read_text())
    result = json.loads((runs["base"] / "result.json").read_text())
    same = ("config_hash", "weights_hash", "split_file")
    assert [kept[name] for name in same] == [result[name] for name in same]
    test = loaded(places["coop"], classes="new").test
    assert kept["split_hashes"]["test"] == test.digest
    assert kept["among"] == "images"
    assert kept["dataset_fingerprint"] != result["dataset_fingerprint"]


def test_new_classes_that_the_run_has_seen_are_refused(runs, places, capsys):
    """By the alphabet, the second half holds two of CoOp's base classes."""
    message = refused(capsys, "--workdir", runs["base"], "--classes=new", *options(places["hub"]))
    assert "of the new classes, the run was trained on ostrich, tench" in message


@pytest.mark.parametrize("form", FORMS)
def test_evaluation_elsewhere(runs, places, capsys, form, tmp_path):
    """The same pictures give the same measures, whatever holds them."""
    own = found(capsys, "--workdir", runs["linear"])
    there = found(
        capsys, "--workdir", runs["linear"], *options(places[form]), "--out", tmp_path / form
    )
    assert there["images"] == own["images"]
    assert there["accuracy"] == own["accuracy"]
    assert there["loss"] == pytest.approx(own["loss"], rel=1e-5)
    kept = json.loads((tmp_path / form / "evaluation.json").read_text())
    assert kept["among"] == "run"
    assert (kept["split_file"] is not None) == (form == "coop")
    assert len(kept["split_hashes"]["test"]) == 64


def measures_of(logits, labels, chosen):
    """Accuracy and loss where some classes alone are possible answers."""
    rows, hits, losses = logits.astype(np.float64), [], []
    for row, label in zip(rows, labels, strict=True):
        hits.append(max(chosen, key=lambda c, row=row: row[c]) == label)
        losses.append(np.log(sum(np.exp(row[c]) for c in chosen)) - row[label])
    return {"accuracy": np.mean(hits), "loss": np.mean(losses)}


def test_a_test_set_of_some_of_the_classes(runs, places, capsys, tmp_path, monkeypatch):
    """As ImageNet-A and R: by default, only the set's classes are possible answers."""
    place = as_tfds(tmp_path / "part", stand_ins.StandInPart)
    row = dataclasses.replace(
        catalogue.CATALOGUE["imagenet_r"], tfds="stand_in_part:1.*.*", classes=len(PART)
    )
    monkeypatch.setitem(catalogue.CATALOGUE, "stand_in_part", row)
    model = vp.load(runs["linear"])
    shown = [(name, i) for name, i in stand_ins.examples("test") if name in PART]
    logits = model.logits(np.stack([stand_ins.pixels("test", name, i) for name, i in shown]))
    labels = np.array([CLASSES.index(name) for name, _ in shown])
    among_all = measures_of(logits, labels, range(len(CLASSES)))
    among_part = measures_of(logits, labels, [CLASSES.index(name) for name in PART])
    assert among_part["loss"] < among_all["loss"] - 0.01
    arguments = ["--workdir", runs["linear"], *options(place)]
    capsys.readouterr()  # TFDS's words over preparing
    got = found(capsys, *arguments)
    assert {name: got[name] for name in among_part} == pytest.approx(among_part, rel=1e-4)
    assert [line["class"] for line in got["by_class"]] == sorted(PART, key=NAMES.index)
    got = found(capsys, *arguments, "--among=run")
    assert {name: got[name] for name in among_all} == pytest.approx(among_all, rel=1e-4)
    # The same files as a folder of WordNet ids.
    for name, i in shown:
        path = tmp_path / "folder" / IDS[NAMES.index(name)] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(stand_ins.png("test", name, i))
    arguments = ["--workdir", runs["linear"], "--dir", tmp_path / "folder"]
    named = found(capsys, *arguments, "--name=stand_in_part")
    assert named["loss"] == pytest.approx(among_part["loss"], rel=1e-4)
    for run in ("linear", "base"):
        message = refused(capsys, "--workdir", runs[run], "--dir", tmp_path / "folder")
        assert "does not know n0" in message
        assert "WordNet ids become words with the dataset's name (--name=" in message


@pytest.mark.parametrize("arguments, message", [
    (["--name=imagenet_a"], "say where by --dir or --source"),
    (["--dir=x", "--set=few_shot=4"], "it has no effect here; what has: label, on_bad_image"),
    (["--dir=x", "--set=shots=4"], "config.data has no 'shots'"),
])  # fmt: skip
def test_options_that_would_have_no_effect_are_refused(runs, capsys, arguments, message):
    assert message in refused(capsys, "--workdir", runs["linear"], *arguments)


def test_a_text_head_says_that_it_is_given_other_classes(runs, places, capsys):
    main(["--workdir", str(runs["base"]), *options(places["hub"])])
    assert "it is given theirs in place of its own" in capsys.readouterr().err
