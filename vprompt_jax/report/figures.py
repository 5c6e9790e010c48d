"""Charts: accuracy over a key, training curves, trained parameters against accuracy."""

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, ScalarFormatter

from vprompt_jax.methods import METHODS, registry
from vprompt_jax.methods.table import title_of
from vprompt_jax.process.errors import UserError
from vprompt_jax.process.escapes import in_figure
from vprompt_jax.report import protocols, tables
from vprompt_jax.report.results import Groups, Record, Setting, accuracies, deviation

# Okabe and Ito's colours, told apart by colour-blind readers; markers and dashes tell the same.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
MARKERS = "osD^vPX"  # seven and eight: 56 different looks
# As many as have to be told apart in one panel of curves (`_CROWDED`), for two methods.
_DASHES = ("-", "--", ":", "-.", (0, (8, 2)), (0, (3, 1, 1, 1, 1, 1)))
_LEAST_RANGE = 4.0  # points of an axis of accuracies
_CROWDED = 12  # settings in one panel; more are drawn by method alone


def axes() -> dict[str, str]:
    """Keys that are numbers, in whose order accuracy is drawn, with the axis' label."""
    return {name: field.key.axis for name, field in registry.all_fields().items() if field.key.axis}


def subplots(rows: int, columns: int, width: float, height: float) -> tuple[Figure, Any]:
    """A figure, drawn without a screen, and its axes [rows, columns]; sizes in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def save(figure: Figure, path: Path) -> list[Path]:
    """Writes `path` as PNG and, beside it, as SVG."""
    figure.savefig(path, dpi=150)
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    return [path, path.with_suffix(".svg")]


def methods_of(settings: Iterable[Setting]) -> list[str]:
    """The methods of a report in a fixed order: the table's, then combinations by name."""
    names = {dict(setting)["method.name"] for setting in settings}
    return [*(name for name in METHODS if name in names), *sorted(names - METHODS.keys())]


def _look(number: int) -> dict[str, Any]:
    return dict(color=COLOURS[number % len(COLOURS)], marker=MARKERS[number % len(MARKERS)])


def styles(
    settings: Sequence[Setting], report: Iterable[Setting] | None = None
) -> dict[Setting, dict[str, Any]]:
    """A look per setting: colour and marker by method, dashes by what else differs.

    Args:
      settings: that a figure shows.
      report: those of the whole report, so that a method looks the same in all figures of it; None
        for `settings`. In a report on one method, colours tell its settings apart instead.
    """
    methods = methods_of(settings if report is None else report)
    looks: dict[Setting, dict[str, Any]] = {}
    seen = dict.fromkeys(methods, 0)
    for setting in settings:
        method = dict(setting)["method.name"]
        number = seen[method]
        seen[method] += 1
        look = number if len(methods) == 1 else methods.index(method)
        looks[setting] = _look(look) | {"linestyle": _DASHES[number % len(_DASHES)]}
    return looks


def _legend(figure: Figure, handles: Sequence[Any], texts: Sequence[str], *, columns: int) -> None:
    """A legend above the axes, in as many of the columns as its texts leave room for."""
    letters = 15 * figure.get_figwidth()  # of one line, without the handles
    columns = max(1, min(columns, int(letters / (max(map(len, texts)) + 10))))
    figure.legend(handles, texts, fontsize=8, ncols=columns, handlelength=4,
                  loc="outside upper center")  # fmt: skip


def _not_magnified(axes: Any) -> None:
    """Widens an axis of accuracies to `_LEAST_RANGE`, so that chance does not look like more."""
    low, high = axes.get_ylim()
    missing = max(0.0, _LEAST_RANGE - (high - low))
    axes.set_ylim(low - missing / 2, high + missing / 2)


def _number(value: Any) -> float | None:
    """A key's value as a place on an axis; None if it has none."""
    if isinstance(value, tuple) and len(value) == 1:
        value = value[0]
    return float(value) if isinstance(value, int | float) else None


def over(groups: Groups, key: str) -> Figure | None:
    """Accuracy over a numeric key: a line per setting otherwise alike (AdaViPro's figure 2).

    Methods without the key are levels: lines across the chart where they are near the others, else
    named in the legend only.

    Returns:
      None if no setting has two values of the key.
    """
    lines: dict[Setting, dict[float, np.ndarray]] = {}
    levels: dict[Setting, np.ndarray] = {}
    for setting, by_seed in groups.items():
        place = _number(dict(setting).get(key))
        rest = tuple(item for item in setting if item[0] != key)
        if place is None:
            levels[rest] = accuracies(by_seed)
        else:
            lines.setdefault(rest, {})[place] = accuracies(by_seed)
    if not lines or max(map(len, lines.values())) < 2:
        return None
    figure, [[axes]] = subplots(1, 1, 6.4, 4.4)
    looks = styles([*lines, *levels], groups)
    low, high = 1.0, 0.0
    at = sorted({place for points in lines.values() for place in points})
    spread_out = at[0] > 0 and at[-1] / at[0] > 20
    for i, (rest, points) in enumerate(lines.items()):
        places = sorted(points)
        means = np.array([points[p].mean() for p in places])
        bars = np.array([deviation(points[p]) for p in places])
        low, high = min(low, *(means - bars)), max(high, *(means + bars))
        # A little beside each other, so that no bar hides another.
        aside = 0.008 * (i - (len(lines) - 1) / 2)
        x = [p * (at[-1] / at[0]) ** aside if spread_out else p + (at[-1] - at[0]) * aside
             for p in places]  # fmt: skip
        axes.errorbar(x, 100 * means, 100 * bars, capsize=3, label=in_figure(tables.describe(rest)),
                      **looks[rest])  # fmt: skip
    records = [r for g in groups.values() for r in g.values()]
    zero_shots = {r.result["zero_shot_accuracy"] for r in records} - {None}
    if len(zero_shots) == 1:
        axes.axhline(100 * min(zero_shots), color="black", linewidth=1, label="zero-shot (TP)")
        low, high = min(low, *zero_shots), max(high, *zero_shots)
    reach = max(high - low, 0.01)
    for rest, values in levels.items():
        mean, name = values.mean(), in_figure(tables.describe(rest))
        if dict(rest)["method.name"] == "tp" and len(zero_shots) == 1:
            continue
        if low - reach <= mean <= high + reach:
            style = looks[rest] | {"marker": "none"}
            axes.axhline(100 * mean, linewidth=1, label=name, **style)
        else:  # far away: a line would flatten all the others
            axes.plot([], [], " ", label=f"{name}: {100 * mean:.1f} %, not drawn")
    if spread_out:
        axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(at))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set_xlabel(registry.all_fields()[key].key.axis)
    axes.set_ylabel("test accuracy (%), mean ± deviation over seeds")
    _not_magnified(axes)
    axes.grid(alpha=0.3)
    _legend(figure, *axes.get_legend_handles_labels(), columns=2)
    return figure


def shots(rows: Sequence[protocols.Row]) -> Figure:
    """Accuracy over shots as CoOp's figure 3: a panel for the datasets' mean, and one for each.

    Zero-shot stands at 0.
    """
    names = protocols.datasets_of(rows)
    panels = {"mean": names} | {name: [name] for name in names}
    columns = min(4, len(panels))
    lines = -(-len(panels) // columns)
    figure, grid = subplots(lines, columns, 3.2 * columns, 2.8 * lines + 0.6)
    for axes, (title, datasets) in zip(grid.flat, panels.items(), strict=False):
        for i, row in enumerate(rows):
            found = protocols.over_shots(row, datasets)
            means, bars = (
                [n.percent for n in found.values()],
                [n.error or 0 for n in found.values()],
            )
            places = [count or 0 for count in found]
            axes.errorbar(places, means, bars, capsize=2, label=in_figure(row.name), **_look(i))
        axes.set_title(in_figure(title), fontsize=9)
        axes.set_xlabel("training images per class")
        axes.set_ylabel("test accuracy (%)")
        axes.grid(alpha=0.3)
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_axis_off()
    _legend(figure, *grid.flat[0].get_legend_handles_labels(), columns=4)
    return figure


def parameters(groups: Groups) -> Figure:
    """Accuracy against trained parameters, a mark per setting."""
    figure, [[axes]] = subplots(1, 1, 6.4, 4.4)
    for i, method in enumerate(methods_of(groups)):
        members = [g for s, g in groups.items() if dict(s)["method.name"] == method]
        counts = [next(iter(g.values())).result["trainable_parameters"] for g in members]
        means = [100 * accuracies(g).mean() for g in members]
        bars = [100 * deviation(accuracies(g)) for g in members]
        axes.errorbar(counts, means, bars, linestyle="none", capsize=3, alpha=0.8,
                      label=in_figure(title_of(method)), **_look(i))  # fmt: skip
    # Zero parameters (TP) have a place, too: linear up to 100, logarithmic beyond.
    axes.set_xscale("symlog", linthresh=100)
    counts = [next(iter(g.values())).result["trainable_parameters"] for g in groups.values()]
    # Whole decades, so that some of them are marked.
    low = 0 if min(counts) < 100 else 10 ** math.floor(math.log10(min(counts)))
    axes.set_xlim(low - 5 * (low == 0), max(1000, 10 ** math.ceil(math.log10(max(counts) + 1))))
    axes.set_xlabel("trained parameters")
    axes.set_ylabel("test accuracy (%), mean ± deviation over seeds")
    _not_magnified(axes)
    axes.grid(alpha=0.3)
    _legend(figure, *axes.get_legend_handles_labels(), columns=4)
    return figure


def _history(record: Record, name: str) -> dict[int, float]:
    """A metric of a run by step; {} where it has none.

    Raises:
      UserError: if the file is damaged.
    """
    path = record.workdir / "metrics.jsonl"
    if not path.is_file():
        return {}
    try:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        return {line["step"]: line[name] for line in lines if name in line}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}): take the run's curves as lost") from error


_CURVES = (
    ("train/loss", "training loss (nats)", 1.0),
    ("val/accuracy", "val accuracy (%)", 100.0),
    ("train/regions_on", "regions on in training (%)", 100.0),
)


def curves(groups: Groups) -> Figure | None:
    """Training over steps, a panel per metric, a line per setting (mean over seeds).

    Returns:
      None if nothing was trained.
    """
    panels = []
    for name, label, scale in _CURVES:
        lines = {}
        for setting, by_seed in groups.items():
            histories = [_history(r, name) for r in by_seed.values()]
            steps = sorted(set.intersection(*(set(h) for h in histories)))
            if steps:
                means = [scale * np.mean([h[s] for h in histories]) for s in steps]
                lines[setting] = (steps, means)
        if any(len(steps) > 1 for steps, _ in lines.values()):
            panels.append((label, lines))
    if not panels:
        return None
    figure, [row] = subplots(1, len(panels), 4.2 * len(panels), 4.0)
    trained = list(dict.fromkeys(s for _, lines in panels for s in lines))
    looks = styles(trained, groups)
    # Many settings: thin lines that show the methods alone.
    crowded = len(trained) > _CROWDED
    for axes, (label, lines) in zip(row, panels, strict=True):
        for setting, (steps, means) in lines.items():
            name = dict(setting)["method.name"]
            text = in_figure(title_of(name) if crowded else tables.describe(setting))
            style = looks[setting] | ({"linestyle": "-"} if crowded else {})
            style["marker"] = style["marker"] if len(steps) < 12 else "none"
            axes.plot(steps, means, linewidth=0.8 if crowded else 1.5, markersize=4, label=text,
                      alpha=0.6 if crowded else 1.0, **style)  # fmt: skip
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
    entries: dict[str, object] = {}
    for axes in row:
        for handle, text in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(text, handle)
    _legend(figure, list(entries.values()), list(entries), columns=len(panels))
    return figure
