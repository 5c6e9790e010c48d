"""Every table of a protocol, computed again from the runs' files of predictions alone."""

import csv
import itertools
import json
import math
import statistics

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.report.test_report import grouped, write_run
from vprompt_jax.evaluate.evaluation import Evaluation
from vprompt_jax.measures import table
from vprompt_jax.measures.split import measured
from vprompt_jax.report import __main__ as program
from vprompt_jax.report import figures, protocols, results

pytestmark = pytest.mark.fast
NAMES = ("ant", "bee", "cat")
SEEDS = (1, 2, 3)


def predicted(rng, count):
    """Labels and logits of a classifier that is often right."""
    labels = rng.integers(0, len(NAMES), count)
    logits = rng.normal(0, 1, (count, len(NAMES))) + rng.uniform(0.5, 2) * np.eye(3)[labels]
    keys = [str(i) for i in range(count)]
    return table.Predictions(keys, labels, logits.astype(np.float32), None)


def accuracy_of(found):
    return measured(found.logits, found.labels, NAMES, temperature=None, zero_shot=None)


class Writer:
    """Writes finished runs with predictions, as `train` and `evaluate` do."""

    def __init__(self, root):
        self.root, self.rng = root, np.random.default_rng(7)

    def run(self, name, seed, also=(), dataset="digits", **keys):
        test = predicted(self.rng, 157)
        folder = self.root / f"{name}-s{seed}"
        write_run(folder, accuracy_of(test)["accuracy"], seed=seed, dataset=dataset, **keys)
        rows = {"test": test, "val": predicted(self.rng, 31)}
        table.write(folder / table.NAME, rows, None, NAMES)
        for other in also:
            found = predicted(self.rng, 93)
            made = Evaluation(accuracy_of(found), found, None, NAMES, "images")
            made.write(folder / "elsewhere" / other, "test", {"dataset": other, "classes": "all"})
        return folder


def share(folder):
    """Percent right on test, from the file of predictions."""
    rows = pq.read_table(folder / "predictions.parquet").to_pylist()
    hits = [row["label"] == row["predicted"] for row in rows if row["split"] == "test"]
    return 100 * sum(hits) / len(hits)


def expected(values):
    """Mean, and sample deviation over the root of their number."""
    return statistics.mean(values), statistics.stdev(values) / math.sqrt(len(values))


def check(found, values):
    mean, error = expected(values)
    assert found.percent == pytest.approx(mean, abs=1e-6)
    assert found.error == pytest.approx(error, abs=1e-6)
    assert found.seeds == len(values)
    assert str(found) == f"{mean:.1f} ± {error:.1f}"


@pytest.fixture
def fewshot(tmp_path):
    """Two methods over three numbers of shots and two datasets, and zero-shot."""
    write = Writer(tmp_path)
    for data, method in itertools.product(("pets", "cars"), ("coop", "linear")):
        for shots, seed in itertools.product((1, 2, 16), SEEDS):
            keys = {"data__source": "tfds", "data__name": data, "data__few_shot": shots,
                    "data__shot_seed": seed, "method__name": method,
                    "optim__epochs": 50 * shots}  # fmt: skip
            write.run(f"{data}-{method}-{shots}", seed, dataset=data, **keys)
    for data in ("pets", "cars"):
        keys = {"data__source": "tfds", "data__name": data, "method__name": "tp"}
        write.run(f"{data}-tp", 1, dataset=data, **keys)
    return tmp_path


def test_shots_and_datasets(fewshot):
    records = results.gather(results.find([fewshot]), by_dataset=True)
    by_dataset, per_shot = protocols.grids(results.group(records))
    assert by_dataset.columns == ("cars", "pets", "mean")
    assert per_shot.columns == ("0", "1", "2", "16")
    shown = {name: found for (name,), found in per_shot.rows}
    assert set(shown) == {"CoOp", "linear probe", "TP (zero-shot)"}  # not the epochs, nor the seeds
    lines = {name: found for (name,), found in by_dataset.rows}
    for method, title in (("coop", "CoOp"), ("linear", "linear probe")):
        for shots in (1, 2, 16):
            of = {d: [share(fewshot / f"{d}-{method}-{shots}-s{s}") for s in SEEDS]
                  for d in ("cars", "pets")}  # fmt: skip
            line = lines[f"{title}, {shots} shot{'s' * (shots > 1)}"]
            check(line["cars"], of["cars"])
            check(line["pets"], of["pets"])
            means = [statistics.mean(pair) for pair in zip(*of.values(), strict=True)]
            check(line["mean"], means)
            check(shown[title][str(shots)], means)
    zero = [share(fewshot / f"{d}-tp-s1") for d in ("cars", "pets")]
    assert shown["TP (zero-shot)"]["0"].percent == pytest.approx(statistics.mean(zero))
    assert shown["TP (zero-shot)"]["0"].error is None
    figure = figures.shots(protocols.rows_of(results.group(records)))
    mean, cars, pets = figure.axes[:3]
    assert [a.get_title() for a in (mean, cars, pets)] == ["mean", "cars", "pets"]
    drawn = {c.get_label(): np.array(c.lines[0].get_data(), float) for c in mean.containers}
    np.testing.assert_allclose(drawn["CoOp"][0], [1, 2, 16])
    np.testing.assert_allclose(
        drawn["CoOp"][1], [shown["CoOp"][str(n)].percent for n in (1, 2, 16)]
    )
    np.testing.assert_allclose(drawn["TP (zero-shot)"], [[0], [statistics.mean(zero)]])


def test_a_mean_over_other_datasets_is_none(fewshot):
    """A method that lacks a dataset has no mean beside those that have both."""
    dirs = [d for d in results.find([fewshot]) if not d.name.startswith("cars-linear-16")]
    groups = results.group(results.gather(dirs, by_dataset=True))
    by_dataset, per_shot = protocols.grids(groups)
    assert "mean" not in dict(by_dataset.rows)[("linear probe, 16 shots",)]
    assert "16" not in dict(per_shot.rows)[("linear probe",)]
    assert "16" in dict(per_shot.rows)[("CoOp",)]


def test_base_new_and_h_of_the_means(tmp_path):
    write = Writer(tmp_path)
    for data, method, seed in itertools.product(("pets", "cars"), ("coop", "tp"), SEEDS):
        keys = {"data__source": "tfds", "data__name": data, "data__classes": "base",
                "method__name": method}  # fmt: skip
        write.run(f"{data}-{method}", seed, ("new",), dataset=data, **keys)
    records = results.gather(results.find([tmp_path]), by_dataset=True)
    grid = protocols.grids(results.group(records))[-1]
    assert grid.columns == ("base", "new", "H")
    found = dict(grid.rows)
    assert [names[0] for names in found] == ["mean over 2"] * 2 + ["cars"] * 2 + ["pets"] * 2

    def pairs(data):
        folders = [tmp_path / f"{data}-coop-s{s}" for s in SEEDS]
        return [(share(f), share(f / "elsewhere" / "new")) for f in folders]

    means = np.mean([pairs("pets"), pairs("cars")], axis=0).tolist()
    for name, of in (("pets", pairs("pets")), ("cars", pairs("cars")), ("mean over 2", means)):
        row = found[name, "CoOp"]
        check(row["base"], [base for base, _ in of])
        check(row["new"], [new for _, new in of])
        base, new = (statistics.mean(values) for values in zip(*of, strict=True))
        assert row["H"].percent == pytest.approx(statistics.harmonic_mean([base, new]))
        mean_of_h = statistics.mean(map(statistics.harmonic_mean, of))
        assert row["H"].percent != pytest.approx(mean_of_h, abs=1e-9)
        # The seeds' pairs, moved along H's slopes at the means, which are taken numerically.
        h, step = statistics.harmonic_mean, 1e-3
        slopes = [(h([base + step, new]) - h([base - step, new])) / (2 * step),
                  (h([base, new + step]) - h([base, new - step])) / (2 * step)]  # fmt: skip
        _, error = expected([slopes[0] * b + slopes[1] * n for b, n in of])
        assert row["H"].error == pytest.approx(error, rel=1e-5)


def test_h_is_what_the_papers_print():
    """MaPLe's README, means over eleven datasets: base, novel, HM."""
    for base, new, h in ((69.34, 74.22, 71.70), (82.69, 63.22, 71.66), (80.47, 71.69, 75.83),
                         (82.28, 75.14, 78.55)):  # fmt: skip
        found = protocols.harmonic([{0: base / 100}], [{0: new / 100}])
        assert round(found.percent, 2) == h
    assert protocols.harmonic([{0: 0.0}], [{0: 0.0}]).percent == 0


def test_elsewhere_and_its_mean_without_the_source(tmp_path):
    write = Writer(tmp_path)
    targets = ("imagenet_a", "imagenet_r", "imagenet_v2")
    for method, seed in itertools.product(("coop", "vp"), SEEDS):
        write.run(method, seed, targets, method__name=method)
    write.run("linear", 1, targets[:1], method__name="linear")  # its head knows no other classes
    (grid,) = protocols.grids(grouped(results.find([tmp_path])))
    assert grid.columns == ("source", *targets, "mean elsewhere")
    row = dict(grid.rows)["digits", "CoOp"]
    check(row["source"], [share(tmp_path / f"coop-s{s}") for s in SEEDS])
    of = {t: [share(tmp_path / f"coop-s{s}" / "elsewhere" / t) for s in SEEDS] for t in targets}
    for target, values in of.items():
        check(row[target], values)
    check(row["mean elsewhere"], [statistics.mean(v) for v in zip(*of.values(), strict=True)])
    assert set(dict(grid.rows)["digits", "linear probe"]) == {"source", "imagenet_a"}


def test_a_report_has_them_as_markdown_latex_and_csv(fewshot, capsys):
    out = fewshot / "out"
    program.main([str(fewshot), "--by_dataset", "--out", str(out)])
    capsys.readouterr()
    for name in ("shots.png", "shots.svg"):
        assert (out / name).stat().st_size > 1000
    values = [share(fewshot / f"{d}-coop-16-s{s}") for d in ("cars", "pets") for s in SEEDS]
    by_seed = [statistics.mean((a, b)) for a, b in zip(values[:3], values[3:], strict=True)]
    mean, error = expected(by_seed)
    (line,) = [line for line in csv.DictReader((out / "tables.csv").read_text().splitlines())
               if (line["row"], line["column"]) == ("CoOp", "16")]  # fmt: skip
    assert float(line["percent"]) == pytest.approx(mean)
    assert float(line["standard_error"]) == pytest.approx(error)
    assert line["seeds"] == "3"
    markdown, latex = (out / "table.md").read_text(), (out / "table.tex").read_text()
    title = "Test accuracy (%) over shots, mean over 2 datasets: mean ± standard error over seeds"
    assert title in markdown
    row = next(r for r in markdown.split(title)[1].splitlines() if r.startswith("| CoOp |"))
    assert f"{mean:.1f} ± {error:.1f}" in row
    assert rf"{mean:.1f} $\pm$ {error:.1f}" in latex
    capsys.readouterr()


def test_damaged_evaluations_are_refused(tmp_path):
    folder = Writer(tmp_path).run("a", 0, ("letters",))
    path = folder / "elsewhere" / "letters" / "evaluation.json"
    path.write_text(json.dumps({"images": 3}))
    with pytest.raises(results.UserError, match="has no accuracy: delete it"):
        results.read(folder)
