"""The tables of the field's protocols: several datasets, shots, base and new classes, elsewhere.

Every number is a mean over seeds in %, with its standard error: the sample deviation over the root
of the number of seeds. A mean over datasets is taken for each seed first, and its error is over the
seeds, which only counts where all datasets have the same ones.
"""

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence

import numpy as np

from vprompt_jax.process.errors import UserError
from vprompt_jax.process.escapes import in_spreadsheet
from vprompt_jax.report.results import Groups, Record, Setting, deviation
from vprompt_jax.report.tables import Table, best_of_column, describe

BySeed = Mapping[int, float]  # accuracies in 0..1, by seed
# Keys that say which images a run is on; what else differs between datasets follows from them.
_OF_DATASET = ("data.source", "data.name", "data.dir", "data.label", "data.split",
               "data.split_file")  # fmt: skip
SHOTS = "data.few_shot"
_ERRORS = "mean ± standard error over seeds"


@dataclasses.dataclass(frozen=True)
class Number:
    """A mean over seeds: percent, its standard error in points (None for one seed), seeds."""

    percent: float
    error: float | None
    seeds: int

    def __str__(self) -> str:
        return f"{self.percent:.1f}" + ("" if self.error is None else f" ± {self.error:.1f}")


@dataclasses.dataclass(frozen=True)
class Grid:
    """A table of numbers.

    Attributes:
      title: of the table.
      corner: headings of the columns that say what a row is.
      columns: headings of the others.
      rows: texts of the first columns, and numbers by column.
    """

    title: str
    corner: tuple[str, ...]
    columns: tuple[str, ...]
    rows: Sequence[tuple[tuple[str, ...], Mapping[str, Number]]]

    def table(self) -> Table:
        """As a page shows it, the best of each column marked where all rows are comparable."""
        body = [[*names, *(str(found.get(c, "-")) for c in self.columns)]
                for names, found in self.rows]  # fmt: skip
        best: frozenset[tuple[int, int]] = frozenset()
        for i, column in enumerate(self.columns) if len(self.corner) == 1 else ():
            values = [found[column].percent if column in found else None for _, found in self.rows]
            best |= best_of_column(values, len(self.corner) + i)
        header = [*self.corner, *self.columns]
        return Table(self.title, header, body, best, names=len(self.corner))


def number(by_seed: BySeed) -> Number:
    """The mean over seeds and its standard error."""
    return _number(np.array(list(by_seed.values())))


def _number(values: np.ndarray) -> Number:
    error = 100 * deviation(values) / len(values) ** 0.5 if len(values) > 1 else None
    return Number(100 * float(values.mean()), error, len(values))


def mean_over(datasets: Sequence[BySeed]) -> Number:
    """The mean over datasets of the means over seeds; its error if all have the same seeds."""
    if len({frozenset(by_seed) for by_seed in datasets}) == 1:
        seeds = list(datasets[0])
        return _number(np.mean([[by_seed[s] for s in seeds] for by_seed in datasets], axis=0))
    means = [np.mean(list(by_seed.values())) for by_seed in datasets]
    return Number(100 * float(np.mean(means)), None, min(map(len, datasets)))


def harmonic(base: Sequence[BySeed], new: Sequence[BySeed]) -> Number:
    """H = 2 b n / (b + n) of the mean accuracies b and n over datasets and seeds.

    The papers print H of the means, not the mean of H: MaPLe's README has 69.34, 74.22 and 71.70
    for CLIP, as means over eleven datasets. Its error is that of the linear part of H about the
    means, over the seeds' means of both, which belong together.
    """
    b, n = mean_over(base), mean_over(new)
    total = b.percent + n.percent
    if not total:
        return Number(0.0, None, b.seeds)
    h = 2 * b.percent * n.percent / total
    if b.error is None or n.error is None or any(
        set(x) != set(y) for x, y in zip(base, new, strict=True)
    ):  # fmt: skip
        return Number(h, None, b.seeds)
    to_base, to_new = 2 * (n.percent / total) ** 2, 2 * (b.percent / total) ** 2
    seeds = list(base[0])
    moved = [to_base * np.mean([d[s] for d in base]) + to_new * np.mean([d[s] for d in new])
             for s in seeds]  # fmt: skip
    return dataclasses.replace(_number(np.array(moved)), percent=h)


@dataclasses.dataclass(frozen=True)
class Row:
    """What a table has a row of: settings that differ in dataset and shots alone.

    Attributes:
      name: method and what else tells it apart.
      runs: by dataset and shots (None: all images), by seed.
    """

    name: str
    runs: Mapping[tuple[str, int | None], Mapping[int, Record]]

    @property
    def shots(self) -> list[int | None]:
        """In order, None first."""
        return sorted({shots for _, shots in self.runs}, key=lambda shots: shots or 0)

    def called(self, shots: int | None) -> str:
        """The name, with the shots if the row has several numbers of them."""
        if not shots or len(self.shots) == 1:
            return self.name
        return f"{self.name}, {shots} shot{'s' if shots > 1 else ''}"


def rows_of(groups: Groups) -> list[Row]:
    """The rows, in the groups' order.

    A key that differs, such as the epochs of a dataset or a rate that was chosen on val, only tells
    rows apart if it has two values with the same method, dataset and shots.

    Raises:
      UserError: if two datasets of one name would share a cell.
    """
    own = ("method.name", *_OF_DATASET, SHOTS)
    values: dict[tuple[Setting, str], set[object]] = {}
    for setting in groups:
        place = tuple(item for item in setting if item[0] in own)
        for key, value in setting:
            if key not in own:
                values.setdefault((place, key), set()).add(value)
    apart = {key for (_, key), seen in values.items() if len(seen) > 1}
    rows: dict[Setting, dict[tuple[str, int | None], Mapping[int, Record]]] = {}
    for setting, by_seed in groups.items():
        record = next(iter(by_seed.values()))
        rest = tuple(item for item in setting if item[0] == "method.name" or item[0] in apart)
        runs, cell = rows.setdefault(rest, {}), (record.dataset, record.config.get(SHOTS))
        if cell in runs:
            raise UserError(
                f"runs of one method on two datasets named {record.dataset} would share a cell: "
                "report on each dataset alone (without --by_dataset)"
            )
        runs[cell] = by_seed
    return [Row(describe(rest), runs) for rest, runs in rows.items()]


def datasets_of(rows: Sequence[Row]) -> list[str]:
    """All datasets by name."""
    return sorted({name for row in rows for name, _ in row.runs})


def over_shots(row: Row, datasets: Sequence[str]) -> dict[int | None, Number]:
    """The mean over datasets for each number of shots for which a row has all of them."""
    found = {}
    for shots in row.shots:
        of = [accuracies(row.runs[d, shots]) for d in datasets if (d, shots) in row.runs]
        if len(of) == len(datasets):
            found[shots] = mean_over(of)
    return found


def grids(groups: Groups) -> list[Grid]:
    """The tables that a report's runs have numbers for."""
    rows = rows_of(groups)
    made = (by_dataset(rows), per_shot(rows), base_to_new(rows), elsewhere(rows))
    return [grid for grid in made if grid is not None]


def by_dataset(rows: Sequence[Row]) -> Grid | None:
    """A column per dataset and their mean, as AdaViPro's table 1; None for one dataset."""
    names = datasets_of(rows)
    if len(names) < 2:
        return None
    body = []
    for row in rows:
        for shots in row.shots:
            of = {name: accuracies(row.runs[name, shots]) for name in names
                  if (name, shots) in row.runs}  # fmt: skip
            found = {name: number(values) for name, values in of.items()}
            if len(of) == len(names):
                found["mean"] = mean_over(list(of.values()))
            body.append(((row.called(shots),), found))
    title = f"Test accuracy (%) by dataset: {_ERRORS}"
    return Grid(title, ("method",), (*names, "mean"), body)


def per_shot(rows: Sequence[Row]) -> Grid | None:
    """A column per number of shots, the mean over datasets; None if the shots do not differ."""
    counts = sorted({shots for row in rows for shots in row.shots if shots})
    if len(counts) < 2:
        return None
    names = datasets_of(rows)
    columns: dict[int | None, str] = {None: _without_shots(rows)} | {n: str(n) for n in counts}
    body = []
    for row in rows:
        if of_shots := over_shots(row, names):
            body.append(((row.name,), {columns[shots]: n for shots, n in of_shots.items()}))
    used = tuple(column for column in columns.values() if any(column in f for _, f in body))
    where = f"mean over {len(names)} datasets" if len(names) > 1 else names[0]
    return Grid(f"Test accuracy (%) over shots, {where}: {_ERRORS}", ("method",), used, body)


def _without_shots(rows: Sequence[Row]) -> str:
    """What no number of shots means: all images are trained on, or none are."""
    records = [r for row in rows for (_, shots), by_seed in row.runs.items() if shots is None
               for r in by_seed.values()]  # fmt: skip
    return "0" if all(r.config["method.name"] == "tp" for r in records) else "all"


def base_to_new(rows: Sequence[Row]) -> Grid | None:
    """Base, new and H for each dataset, and for their means, as CoCoOp's table 1; None without."""
    body = []
    whole = sorted({name for row in rows for name, _ in _both(row)})
    for row in rows:
        found = _both(row)
        for shots in row.shots:
            pairs = {name: pair for (name, at), pair in found.items() if at == shots}
            if len(pairs) == len(whole) > 1:
                bases, news = zip(*pairs.values(), strict=True)
                body.append(
                    ((f"mean over {len(whole)}", row.called(shots)), _base_new(bases, news))
                )
            for name, (base, new) in sorted(pairs.items()):
                body.append(((name, row.called(shots)), _base_new([base], [new])))
    body.sort(key=lambda line: (not line[0][0].startswith("mean over"), line[0][0]))
    if not body:
        return None
    title = f"Base-to-new generalisation (%): {_ERRORS}, H of the means"
    return Grid(title, ("dataset", "method"), ("base", "new", "H"), body)


def _both(row: Row) -> dict[tuple[str, int | None], tuple[BySeed, BySeed]]:
    """Accuracies on base and new classes by dataset and shots, where all seeds have both."""
    return {
        place: (accuracies(by_seed), {s: r.elsewhere["new"] for s, r in by_seed.items()})
        for place, by_seed in row.runs.items()
        if all(r.is_base_to_new for r in by_seed.values())
    }


def _base_new(base: Sequence[BySeed], new: Sequence[BySeed]) -> dict[str, Number]:
    return {"base": mean_over(base), "new": mean_over(new), "H": harmonic(base, new)}


def elsewhere(rows: Sequence[Row]) -> Grid | None:
    """The source and what its runs were measured on afterwards, with the mean of the latter, as
    CoCoOp's tables 2 and 3; None if they were not."""
    body = []
    names: dict[str, None] = {}
    for row in rows:
        for (source, shots), by_seed in row.runs.items():
            targets = list(dict.fromkeys(t for r in by_seed.values() for t in r.targets))
            of = {t: {s: r.targets[t] for s, r in by_seed.items() if t in r.targets}
                  for t in targets}  # fmt: skip
            if targets:
                names |= dict.fromkeys(targets)
                body.append(((source, row.called(shots)), accuracies(by_seed), of))
    if not body:
        return None
    lines = []
    for label, own, of in body:
        found = {"source": number(own)} | {t: number(values) for t, values in of.items()}
        if len(of) == len(names):
            found["mean elsewhere"] = mean_over(list(of.values()))
        lines.append((label, found))
    title = f"Measured elsewhere, without further training (%): {_ERRORS}"
    columns = ("source", *names, "mean elsewhere")
    return Grid(title, ("trained on", "method"), columns, lines)


def accuracies(by_seed: Mapping[int, Record]) -> BySeed:
    """Test accuracies by seed."""
    return {seed: record.accuracy for seed, record in by_seed.items()}


def as_csv(made: Sequence[Grid]) -> str:
    """A line per number of all tables: table, row, column, percent, standard error, seeds."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["table", "row", "column", "percent", "standard_error", "seeds"])
    for grid in made:
        for names, found in grid.rows:
            for column in grid.columns:
                if (n := found.get(column)) is not None:
                    texts = map(in_spreadsheet, (grid.title, ", ".join(names), column))
                    writer.writerow([*texts, n.percent, n.error, n.seeds])
    return text.getvalue()
