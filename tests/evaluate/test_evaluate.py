"""`vprompt evaluate`: the run's own images, others of the same classes, other classes."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import vprompt_jax as vp
from tests.conftest import small_config
from vprompt_jax.data import digits
from vprompt_jax.evaluate.__main__ import main
from vprompt_jax.export import files as export
from vprompt_jax.train import fit


@pytest.fixture(scope="module")
def runs(tiny_path, tmp_path_factory):
    """Workdirs of a text head's and a linear head's run on a few digits."""
    made = {}
    for method in ("vp", "linear"):
        c = small_config(tiny_path)
        c.method.name, c.data.few_shot, c.optim.epochs = method, 8, 1
        c.optim.batch_size, c.optim.warmup_steps = 40, 1
        made[method] = tmp_path_factory.mktemp("runs") / method
        fit(c, made[method])
    return made


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Forty test digits of two classes as files, and under other names."""
    root = tmp_path_factory.mktemp("photos")
    data = digits.load()
    for label, other in ((3, "cat"), (7, "dog")):
        chosen = np.flatnonzero(data.test.labels == label)[:20]
        for folder in (root / "same" / data.class_names[label].upper(), root / "other" / other):
            folder.mkdir(parents=True)
            for i, pixels in zip(chosen, data.test.fetch(chosen), strict=True):
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return root


def found(capsys, *arguments):
    main([*map(str, arguments), "--json"])
    return json.loads(capsys.readouterr().out)


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        main(list(map(str, arguments)))
    assert stop.value.code == 1
    message = capsys.readouterr().err
    assert message.count("error:") <= 1
    return message


@pytest.mark.parametrize("split", ["test", "val"])
def test_a_runs_own_split_again(runs, capsys, tmp_path, split):
    stored = json.loads((runs["vp"] / "result.json").read_text())[split]
    got = found(capsys, "--workdir", runs["vp"], "--split", split, "--out", tmp_path / "out")
    assert got["accuracy"] == pytest.approx(stored["accuracy"], abs=1e-3)
    assert got["loss"] == pytest.approx(stored["loss"], rel=1e-4)
    assert got["calibration_error_scaled"] is not None  # the run's own temperature
    table = pq.read_table(tmp_path / "out" / "predictions.parquet").to_pydict()
    hits = [a == b for a, b in zip(table["label"], table["predicted"], strict=True)]
    assert np.mean(hits) == pytest.approx(got["accuracy"])
    kept = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert kept["accuracy"] == got["accuracy"]


@pytest.mark.parametrize("method", ["vp", "linear"])
def test_other_images_of_some_of_the_classes(runs, photos, capsys, method):
    """Names that differ in case alone are the run's; all its classes can be predicted."""
    got = found(capsys, "--workdir", runs[method], "--dir", photos / "same")
    model = vp.load(runs[method])
    hits = []
    for folder in sorted((photos / "same").iterdir()):
        predicted = model.predict(sorted(folder.iterdir()))
        hits += [name == folder.name.lower() for name in predicted]
    assert got["images"] == 40
    assert got["accuracy"] == pytest.approx(np.mean(hits))


def test_a_text_head_takes_other_classes(runs, photos, capsys):
    main(["--workdir", str(runs["vp"]), "--dir", str(photos / "other")])
    out = capsys.readouterr().out
    assert "other: 40 images" in out
    assert "cat" in out
    assert "dog" in out


def test_a_linear_head_refuses_other_classes(runs, photos, capsys):
    message = refused(capsys, "--workdir", runs["linear"], "--dir", photos / "other")
    assert "does not know cat, dog" in message
    assert "a run whose head compares images with the classes' texts" in message


def test_an_export_needs_images_and_takes_them(runs, photos, capsys, tmp_path):
    export.write(vp.load(runs["vp"]), tmp_path / "export")
    assert "by --dir" in refused(capsys, "--workdir", tmp_path / "export")
    there = found(capsys, "--workdir", tmp_path / "export", "--dir", photos / "same")
    here = found(capsys, "--workdir", runs["vp"], "--dir", photos / "same")
    assert there["accuracy"] == here["accuracy"]
    assert there["loss"] == pytest.approx(here["loss"], rel=1e-4)


@pytest.mark.parametrize("arguments, message", [
    (["--split", "val", "--dir", "{photos}/same"], "has no val split; it has train"),
    (["--dir", "{photos}/nowhere"], "nowhere"),
    (["--batch_size", "0"], "at least 1"),
    (["--out", "{run}"], "holds a run"),
])  # fmt: skip
def test_mistakes_are_one_message(runs, photos, capsys, arguments, message):
    filled = [a.format(photos=photos, run=runs["vp"]) for a in arguments]
    assert message in refused(capsys, "--workdir", runs["vp"], *filled)
