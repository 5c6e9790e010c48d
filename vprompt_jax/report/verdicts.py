"""What runs are right and wrong about: measures and comparisons by image, and their pictures."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from vprompt_jax.inference.adapted import Adapted
from vprompt_jax.measures import table as predictions
from vprompt_jax.measures.calibration import bins
from vprompt_jax.measures.compare import compare
from vprompt_jax.process.escapes import in_figure
from vprompt_jax.report import tables
from vprompt_jax.report.figures import subplots
from vprompt_jax.report.gallery import draw_marks
from vprompt_jax.report.results import Groups, Record
from vprompt_jax.report.tables import Table

_MOST_CLASSES = 40  # of a drawn confusion matrix
_WITH_NUMBERS = 12  # classes, up to which its cells have numbers
MISTAKES = 8  # shown
_LEAST_P = 0.001  # below which a p-value is not written out


def best_of(groups: Groups) -> tuple[str, Record]:
    """The setting with the highest mean accuracy, in words, and its run of the first seed."""

    def mean(by_seed: dict[int, Record]) -> float:
        return float(np.mean([record.accuracy for record in by_seed.values()]))

    setting = max(groups, key=lambda s: mean(groups[s]))
    return tables.describe(setting), next(iter(groups[setting].values()))


def measures(groups: Groups) -> Table | None:
    """A row per setting: what its run of the first seed is worth on test; None for older runs."""
    rows = []
    for setting, by_seed in groups.items():
        record = next(iter(by_seed.values()))
        found = record.result.get("test")
        if found is None:
            continue
        gain = found["against_zero_shot"]
        rows.append([
            tables.describe(setting),
            f"{100 * found['accuracy']:.1f} ({_range(found['accuracy_interval'])})",
            _percent(found["top5_accuracy"]),
            _percent(found["calibration_error"]),
            _percent(found["calibration_error_scaled"]),
            _gain(gain["difference"], gain["interval"], gain["p"]) if gain else "-",
        ])  # fmt: skip
    if not rows:
        return None
    header = ["setting, first seed", "test accuracy (%, 95 % interval)", "top-5 (%)",
              "calibration error (%)", "with a temperature (%)",
              "gain on zero-shot (points, 95 % interval)"]  # fmt: skip
    if all(row[2] == "-" for row in rows):
        header, rows = header[:2] + header[3:], [row[:2] + row[3:] for row in rows]
    title = (
        "Test images of one run: intervals by bootstrap over images, p by McNemar's exact test, "
        "expected calibration error in 15 bins, as it is and with the temperature fitted on val"
    )
    return Table(title, header, rows)


def against_best(groups: Groups) -> Table | None:
    """Every setting against the best one, image by image; None without two runs to compare."""
    if len(groups) < 2:
        return None
    name, best = best_of(groups)
    ours = predictions.read(best.workdir, "test")
    if ours is None:
        return None
    rows = []
    for setting, by_seed in groups.items():
        record = by_seed.get(best.result["seed"])
        if record is None or record.workdir == best.workdir:
            continue
        theirs = predictions.read(record.workdir, "test")
        if theirs is None or list(theirs["image"]) != list(ours["image"]):
            continue
        found = compare(_hits(theirs), _hits(ours))
        cell = _gain(found.difference, found.interval, found.p)
        rows.append([tables.describe(setting), cell])
    title = f"Against {name} on the same test images, seed {best.result['seed']}"
    header = ["setting", "difference (points, 95 % interval)"]
    return Table(title, header, rows) if rows else None


def by_class(name: str, record: Record) -> Table | None:
    """Accuracy by class of one run, worst first; None for older runs."""
    found = record.result.get("test")
    if found is None:
        return None
    rows = sorted(found["by_class"], key=lambda row: (row["accuracy"] is None, row["accuracy"]))
    cells = [
        [row["class"], f"{row['images']:,}", _percent(row["accuracy"]),
         _percent(row["zero_shot_accuracy"])]
        for row in rows
    ]  # fmt: skip
    header = ["class", "test images", "accuracy (%)", "zero-shot (%)"]
    return Table(f"Accuracy by class: {name}, the worst first", header, cells)


def _hits(rows: dict[str, np.ndarray]) -> np.ndarray:
    return rows["label"] == rows["predicted"]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"


def _range(interval: Sequence[float]) -> str:
    return " to ".join(f"{100 * end:.1f}" for end in interval)


def _gain(difference: float, interval: Sequence[float], p: float) -> str:
    ends = " to ".join(f"{100 * end:+.1f}" for end in interval)
    chance = f"p = {p:.3f}" if p >= _LEAST_P else f"p < {_LEAST_P}"
    return f"{100 * difference:+.1f} ({ends}; {chance})"


def confusion(record: Record) -> Figure | None:
    """Which class is taken for which, in percent of a row; None if that is not stored or drawn."""
    found = record.result.get("test")
    names = record.result.get("class_names", [])
    if found is None or found["confusion"] is None or len(names) > _MOST_CLASSES:
        return None
    counts = np.array(found["confusion"], float)
    shares = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = 2.2 + max(0.33 * len(names), 1.5)
    figure, [[axes]] = subplots(1, 1, side + 0.6, side)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    labels = [in_figure(name[:20]) for name in names]
    axes.set_xticks(range(len(names)), labels, rotation=90, fontsize=8)
    axes.set_yticks(range(len(names)), labels, fontsize=8)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true class")
    if len(names) <= _WITH_NUMBERS:
        for (row, column), share in np.ndenumerate(shares):
            if round(share):
                axes.text(column, row, f"{share:.0f}", ha="center", va="center", fontsize=7,
                          color="white" if share > 55 else "black")  # fmt: skip
    figure.colorbar(image, ax=axes, label="% of the class's images", shrink=0.8)
    return figure


def reliability(rows: dict[str, np.ndarray]) -> Figure:
    """Accuracy over confidence: of probabilities as they are, and with the fitted temperature."""
    figure, [[axes]] = subplots(1, 1, 4.6, 4.4)
    axes.plot([0, 100], [0, 100], color="black", linewidth=0.8, label="perfectly calibrated")
    kinds: list[tuple[str, str, dict[str, Any]]] = [
        ("probability", "as it is", dict(color="#0072B2", marker="o")),
        ("probability_scaled", "with the temperature of val", dict(color="#D55E00", marker="s")),
    ]
    for column, text, look in kinds:
        if any(value is None for value in rows[column]):
            continue
        share, said, right = bins(rows[column].astype(float), _hits(rows)).T
        axes.plot(100 * said, 100 * right, linewidth=1, alpha=0.8, label=text, markersize=4, **look)
        axes.scatter(100 * said, 100 * right, s=600 * share, alpha=0.2, color=look["color"])
    axes.set_xlabel("confidence (%)")
    axes.set_ylabel("accuracy (%)")
    axes.set_xlim(0, 102)
    axes.set_ylim(0, 102)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="upper left")
    return figure


def mistakes(model: Adapted, images: np.ndarray, rows: dict[str, np.ndarray]) -> Figure:
    """The most confident mistakes: the image and, for a pixel prompt, its mask and what is seen.

    Args:
      model: of the run.
      images: uint8 [k, h, w, 3], of the rows.
      rows: of the table of predictions, for these images alone.
    """
    shown = model.inspect(images)
    lines = ["image"]
    if model.prompt is not None:
        lines += ["mask"] * ("marks" in shown) + ["prompted"]
    figure, axes = subplots(len(lines), len(images), 1.25 * len(images), 1.25 * len(lines) + 0.7)
    for column in range(len(images)):
        for row, line in enumerate(lines):
            cell = axes[row, column]
            if line == "mask":
                draw_marks(cell, shown["marks"][column])
            else:
                cell.imshow(shown[line][column], vmin=0, vmax=1, interpolation="nearest")
            cell.set_xticks([])
            cell.set_yticks([])
        true, taken = (in_figure(str(rows[c][column])[:18]) for c in ("label", "predicted"))
        percent = f"{100 * rows['probability'][column]:.0f} %"
        axes[0, column].set_title(f"{true}\nas {taken}\n{percent}", fontsize=7)
    for row, line in enumerate(lines):
        axes[row, 0].set_ylabel(line, fontsize=8)
    return figure


def worst(rows: dict[str, np.ndarray]) -> dict[str, np.ndarray] | None:
    """The rows of the most confident mistakes, the worst first; None if there is no mistake."""
    wrong = np.flatnonzero(~_hits(rows))
    order = np.argsort(-rows["probability"][wrong].astype(float), kind="stable")[:MISTAKES]
    chosen = wrong[order]
    return {c: values[chosen] for c, values in rows.items()} if len(chosen) else None
