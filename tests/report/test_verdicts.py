"""What a report says of single images: measures, comparisons, mistakes; how it marks the best."""

import json
import re

import numpy as np
import pytest

from tests.report.test_report import write_run
from vprompt_jax import report
from vprompt_jax.measures import table
from vprompt_jax.measures.calibration import fitted_temperature
from vprompt_jax.measures.compare import compare
from vprompt_jax.measures.split import measured
from vprompt_jax.measures.table import Predictions
from vprompt_jax.report import results, tables, verdicts

pytestmark = pytest.mark.fast
NAMES = ("a", "b", "c")


def write_measured(folder, strength, **keys):
    """A finished run with predictions on 200 images, the better the stronger."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 200)
    logits = rng.normal(size=(200, 3)).astype(np.float32)
    before = logits.copy()
    logits[np.arange(200), labels] += strength
    accuracy = float((logits.argmax(1) == labels).mean())
    zero_shot = float((before.argmax(1) == labels).mean())
    write_run(folder, accuracy, zero_shot=zero_shot, **keys)
    temperature = fitted_temperature(logits, labels)
    found = measured(logits, labels, NAMES, temperature=temperature, zero_shot=before)
    stored = json.loads((folder / "result.json").read_text())
    stored |= {"test": found, "class_names": NAMES, "temperature": temperature}
    (folder / "result.json").write_text(json.dumps(stored))
    rows = {"test": Predictions([f"{i}.jpg" for i in range(200)], labels, logits, before)}
    table.write(folder / table.NAME, rows, temperature, NAMES)
    return folder


@pytest.fixture
def groups(tmp_path):
    made = [
        write_measured(tmp_path / "vp", 1.0, method__name="vp"),
        write_measured(tmp_path / "adavipro", 2.0, method__name="adavipro"),
        write_run(tmp_path / "old", 0.1, method__name="linear"),  # before there were predictions
    ]
    return results.group(results.gather(made))


def test_measures_are_those_of_the_runs(groups):
    found = verdicts.measures(groups)
    assert len(found.rows) == 2
    name, best = verdicts.best_of(groups)
    assert name == "AdaViPro"
    row = next(row for row in found.rows if row[0] == "AdaViPro")
    stored = best.result["test"]
    assert row[1].startswith(f"{100 * stored['accuracy']:.1f} (")
    assert row[2] == f"{100 * stored['calibration_error']:.1f}"  # no top-5 among three classes
    assert f"{100 * stored['against_zero_shot']['difference']:+.1f}" in row[4]
    assert "p < 0.001" in row[4]


def test_settings_are_compared_image_by_image(groups):
    (row,) = verdicts.against_best(groups).rows
    ours, theirs = (table.read(r.workdir, "test") for g in groups.values() for r in g.values()
                    if r.method != "linear")  # fmt: skip
    hits = [rows["label"] == rows["predicted"] for rows in (ours, theirs)]
    difference = compare(*sorted(hits, key=np.sum)).difference
    assert row[0] == "VP"
    assert row[1].startswith(f"{100 * difference:+.1f} (")


def test_other_test_images_are_not_compared(groups, tmp_path):
    rows = table.read(tmp_path / "vp", "test")
    labels = np.zeros(200, int)
    moved = Predictions([f"other{i}" for i in rows["index"]], labels, np.eye(3)[labels], None)
    table.write(tmp_path / "vp" / table.NAME, {"test": moved}, None, NAMES)
    assert verdicts.against_best(groups) is None


def test_the_worst_mistakes_come_first(tmp_path, groups):
    rows = table.read(tmp_path / "vp", "test")
    worst = verdicts.worst(rows)
    assert len(worst["label"]) == verdicts.MISTAKES
    assert (worst["label"] != worst["predicted"]).all()
    wrong = rows["label"] != rows["predicted"]
    assert list(worst["probability"]) == sorted(rows["probability"][wrong])[:-9:-1]
    right = {c: v[~wrong] for c, v in rows.items()}
    assert verdicts.worst(right) is None


def test_a_report_of_measured_runs(tmp_path, groups, capsys):
    out = tmp_path / "out"
    report.write([tmp_path / "vp", tmp_path / "adavipro"], out)
    page = (out / "report.html").read_text()
    for name in ("confusion", "reliability"):
        assert (out / f"{name}.svg").is_file()
    assert "left out: pictures of mistakes" in capsys.readouterr().out  # these runs have no weights
    seen = re.findall(r'alt="([^"]*)"', page)
    assert all(len(text) > 20 for text in seen)
    assert any(re.search(r"most often [abc] is taken for [abc]", text) for text in seen)
    assert page.count("<strong>") == 1  # the best accuracy
    assert page.count('tabindex="0"') == page.count('class="wide"')


def test_the_best_is_marked_once_in_every_format(groups):
    found = tables.summary(groups)
    best = f"{100 * verdicts.best_of(groups)[1].accuracy:.1f}"
    assert re.findall(r"\*\*([\d.]+)", found.markdown().partition("\n")[2]) == [best]
    assert re.findall(r"<strong>([\d.]+)", found.html()) == [best]
    assert re.findall(r"\\textbf\{([\d.]+)", found.latex()) == [best]


def test_equal_values_have_no_best(tmp_path):
    runs = [write_run(tmp_path / m, 0.5, method__name=m) for m in ("vp", "tp")]
    assert tables.summary(results.group(results.gather(runs))).best == frozenset()
