"""The pictures of a report: figure, caption, and what a reader who cannot see it is told."""

import dataclasses
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from vprompt_jax.measures import table as predictions
from vprompt_jax.methods.table import title_of
from vprompt_jax.report import figures, gallery, layers, protocols, tables, verdicts
from vprompt_jax.report.results import Groups, Record, accuracies
from vprompt_jax.report.sources import Sources, where_possible

_MOST_PROMPTS = 12  # shown


@dataclasses.dataclass(frozen=True)
class Picture:
    """One picture.

    Attributes:
      name: of its files, without a suffix.
      figure: what they show.
      caption: what stands below it.
      seen: what there is to see in it, in words.
    """

    name: str
    figure: Figure
    caption: str
    seen: str


def of_charts(groups: Groups) -> list[Picture]:
    """Accuracy over every key that varies and over parameters, and the curves of training."""
    made = []
    means = {tables.describe(s): 100 * accuracies(g).mean() for s, g in groups.items()}
    listed = "; ".join(f"{name} {mean:.1f} %" for name, mean in list(means.items())[:12])
    for key, label in figures.axes().items():
        if (figure := figures.over(groups, key)) is not None:
            name = f"accuracy_over_{key.split('.')[-1]}"
            seen = f"Line chart of test accuracy over {label}: {listed}."
            made.append(Picture(name, figure, f"Test accuracy over {label}.", seen))
    if len(groups) > 1:  # one point shows nothing
        caption = "Test accuracy against trained parameters."
        by_method = "; ".join(_parameters(groups))
        seen = f"Points, a colour per method: {by_method}."
        made.append(Picture("parameters", figures.parameters(groups), caption, seen))
    figure = where_possible("curves of training", lambda: figures.curves(groups), None)
    if figure is not None:
        seen = "Line charts over training steps, a panel each: " + "; ".join(
            str(axes.get_ylabel()) for axes in figure.axes
        )
        made.append(Picture("curves", figure, "Training, mean over seeds.", seen + "."))
    return made


def of_shots(groups: Groups) -> list[Picture]:
    """Accuracy over shots, of several datasets; [] if the shots do not differ."""
    rows = protocols.rows_of(groups)
    grid = protocols.per_shot(rows)
    if grid is None:
        return []
    names = [name for (name,), _ in grid.rows]
    seen = "Line charts over shots, of the datasets' mean and of each dataset: " + ", ".join(names)
    caption = "Test accuracy over training images per class, mean ± standard error over seeds."
    return [Picture("shots", figures.shots(rows), caption, seen + "; the table has the means.")]


def _parameters(groups: Groups) -> list[str]:
    """For each method: its range of trained parameters and of accuracies."""
    texts = []
    for method in figures.methods_of(groups):
        members = [g for s, g in groups.items() if dict(s)["method.name"] == method]
        counts = [next(iter(g.values())).result["trainable_parameters"] for g in members]
        points = [100 * accuracies(g).mean() for g in members]
        sizes = " to ".join(f"{n:,}" for n in sorted({min(counts), max(counts)}))
        best = " to ".join(dict.fromkeys(f"{p:.1f}" for p in (min(points), max(points))))
        texts.append(f"{title_of(method)} {best} % with {sizes} parameters")
    return texts


def of_layers(by_tower: dict[str, list[dict[str, Any]]]) -> Picture:
    """Where the frozen tower's features are global."""
    caption = "Where the frozen tower's features are global, beside AP's accuracy."
    seen = f"Line charts over positions in the tower, of {', '.join(by_tower)}; the table above "
    return Picture("layers", layers.figure(by_tower), caption, seen + "has the numbers.")


def of_prompts(groups: Groups, found: Sources) -> list[Picture]:
    """Every setting with a pixel prompt, at its first seed, on one test image of every class."""
    chosen = [
        (tables.describe(setting), next(iter(by_seed.values())))
        for setting, by_seed in groups.items()
        if "prompt_size" in next(iter(by_seed.values())).result
    ][:_MOST_PROMPTS]
    if not chosen:
        return []
    models = [(name.replace(", ", "\n"), found.model(record)) for name, record in chosen]
    dataset = found.dataset(chosen[0][1], models[0][1])
    test = dataset.test
    indices = gallery.one_per_class(test.labels)
    images = test.fetch(indices)
    names = [dataset.class_names[label] for label in test.labels[indices]]
    made = []
    for start in range(0, len(chosen), gallery.MOST_SETTINGS):
        part = chosen[start : start + gallery.MOST_SETTINGS]
        number = start // gallery.MOST_SETTINGS + 1
        settings = "; ".join(name for name, _ in part)
        caption = (
            f"One test image per class under {settings} "
            f"(seed {part[0][1].result['seed']}). Prompts are clipped to what a screen can show."
        )
        figure = gallery.prompted(models[start : start + len(part)], images, names)
        on = [
            f"{name} has {100 * record.result['regions_on']:.0f} % of its regions on"
            for name, record in part
            if record.result["regions_on"] is not None
        ]
        seen = f"Rows: {', '.join(names)}. Columns: the image, then prompt, mask and prompted image"
        seen = "; ".join([f"{seen} of {settings}", *on]) + "."
        made.append(Picture(f"prompted_{number}", figure, caption, seen))
    return made


def of_verdicts(name: str, best: Record, found: Sources) -> list[Picture]:
    """What the best setting's run is right and wrong about."""
    made = []
    if (figure := verdicts.confusion(best)) is not None:
        caption = f"Which class is taken for which, in percent of a class's test images: {name}."
        made.append(Picture("confusion", figure, caption, _most_confused(best)))
    rows = predictions.read(best.workdir, "test")
    if rows is None:
        return made
    caption = f"Accuracy over confidence on test: {name}. An area shows how many images it is of."
    error = 100 * best.result["test"]["calibration_error"]
    seen = f"Accuracy over confidence, beside the diagonal; on average {error:.1f} points from it."
    made.append(Picture("reliability", verdicts.reliability(rows), caption, seen))

    def of_mistakes() -> list[Picture]:
        wrong = verdicts.worst(rows)
        if wrong is None:
            return []
        model = found.model(best)
        images = found.dataset(best, model).test.fetch(wrong["index"])
        caption = f"The most confident mistakes on test: {name}."
        seen = "Images of " + "; ".join(
            f"{label} taken for {taken}"
            for label, taken in zip(wrong["label"], wrong["predicted"], strict=True)
        )
        return [Picture("mistakes", verdicts.mistakes(model, images, wrong), caption, seen + ".")]

    none: list[Picture] = []
    return made + where_possible("pictures of mistakes", of_mistakes, none)


def _most_confused(record: Record) -> str:
    names = record.result["class_names"]
    counts = np.array(record.result["test"]["confusion"])
    right = 100 * counts.trace() / counts.sum()
    np.fill_diagonal(counts, 0)
    a, b = np.unravel_index(counts.argmax(), counts.shape)
    return (
        f"Heat map of {len(names)} classes; {right:.1f} % lies on the diagonal, and most often "
        f"{names[a]} is taken for {names[b]} ({counts[a, b]} images)."
    )
