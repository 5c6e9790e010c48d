"""Pictures: the prompts, and what each does to one image of every class (AdaViPro's figure 4)."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from vprompt_jax.inference.adapted import Adapted
from vprompt_jax.process.escapes import in_figure
from vprompt_jax.report.figures import subplots

MOST_CLASSES = 10  # rows of a figure
MOST_SETTINGS = 4  # prompts in a figure
NEARLY_ZERO = 1e-3  # contrast of a prompt, below which nothing of it could be seen

_ON, _OFF, _WITHOUT = "#FFEA46", "#00224E", "#DDDDDD"  # the ends of cividis, and grey


def one_per_class(labels: np.ndarray, most: int = MOST_CLASSES) -> np.ndarray:
    """Index of the first example of each class, or of `most` evenly spread classes of many."""
    classes = np.unique(labels)
    if len(classes) > most:
        classes = classes[np.linspace(0, len(classes) - 1, most).astype(int)]
    return np.array([np.flatnonzero(labels == c)[0] for c in classes], np.int32)


def _contrast(prompt: np.ndarray) -> float:
    """Root mean square over a template's pixels; 0 for a prompt of zeros."""
    drawn = prompt[prompt != 0].astype(np.float64)
    return float(np.sqrt(np.mean(drawn**2))) if drawn.size else 0.0


def magnified(prompt: np.ndarray) -> tuple[np.ndarray, int]:
    """A prompt with the contrast of N(0, 1), if it has less, and the whole number that did it.

    One of hardly any contrast stays as it is: it would be rounding noise that is shown.
    """
    contrast = _contrast(prompt)
    factor = max(1, int(1 / contrast)) if contrast >= NEARLY_ZERO else 1
    return factor * prompt, factor


def _heading(title: str, prompt: np.ndarray, factor: int) -> str:
    """What stands above a prompt."""
    if _contrast(prompt) < NEARLY_ZERO:
        return f"{title}\nprompt, nearly zero"
    return f"{title}\nprompt" + (f" x {factor}" if factor > 1 else "")


def draw_marks(cell: Axes, marks: np.ndarray) -> None:
    """Draws marks [g, g], with NaN where the template has no parameters."""
    colours = ListedColormap([_OFF, _ON]).with_extremes(bad=_WITHOUT)
    cell.imshow(marks, cmap=colours, vmin=0, vmax=1, interpolation="nearest")


def prompted(
    models: Sequence[tuple[str, Adapted]], images: np.ndarray, names: Sequence[str]
) -> Figure:
    """A row per image; its edges, and per model the prompt, the mask and the prompted image.

    A faint prompt is shown with more contrast than it has; its heading says by what factor.

    Args:
      models: with a pixel prompt each, and what stands above their columns.
      images: uint8 [n, h, w, 3].
      names: of the images' classes.
    """
    columns: list[tuple[str, np.ndarray]] = []
    masked = False
    for title, model in models:
        shown = model.inspect(images)
        if not columns:
            columns.append(("image", shown["image"]))
        if "edges" in shown:
            masked = True
            if all(heading != "edges" for heading, _ in columns):
                columns.insert(1, ("edges", shown["edges"]))
        assert model.prompt is not None, "models without a pixel prompt are not shown"
        prompt, factor = magnified(model.prompt)
        heading = _heading(title, model.prompt, factor)
        prompt = np.broadcast_to(model.on_screen(prompt), shown["image"].shape)
        columns.append((heading, prompt))
        if "marks" in shown:
            columns.append(("mask", shown["marks"]))
        columns.append(("prompted", shown["prompted"]))
    figure, axes = subplots(len(images), len(columns), 1.1 * len(columns) + 0.5,
                            1.1 * len(images) + 1.0)  # fmt: skip
    for column, (title, pictures) in enumerate(columns):
        for row, picture in enumerate(pictures):
            cell = axes[row, column]
            if title == "mask":
                draw_marks(cell, picture)
            else:
                cell.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            cell.set_xticks([])
            cell.set_yticks([])
        axes[0, column].set_title(in_figure(title), fontsize=8)
    for row, name in enumerate(names):
        axes[row, 0].set_ylabel(in_figure(name[:16]), fontsize=8)
    if masked:
        legend = [Patch(facecolor=_ON, label="prompt added"),
                  Patch(facecolor=_OFF, label="not added"),
                  Patch(facecolor=_WITHOUT, label="template has no parameters")]  # fmt: skip
        figure.legend(handles=legend, fontsize=8, ncols=3, loc="outside lower center")
    return figure
