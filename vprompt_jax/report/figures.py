"""Figures: accuracy over prompt size, and prompted images beside their edges and masks."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from vprompt_jax.clip.preprocess import MEAN, STD, preprocess_batch
from vprompt_jax.prompts.edges import EDGES
from vprompt_jax.report.results import Accuracies
from vprompt_jax.train.assemble import Run
from vprompt_jax.model import variables_of
from vprompt_jax.train.step import evaluation_places

# Okabe and Ito's colours, told apart by colour-blind readers; markers and dashes tell the same.
_STYLES = {
    ("vp", "zeros"): dict(color="#E69F00", marker="s", linestyle="-"),
    ("vp", "normal"): dict(color="#D55E00", marker="s", linestyle="--"),
    ("adavipro", "zeros"): dict(color="#56B4E9", marker="o", linestyle="-"),
    ("adavipro", "normal"): dict(color="#0072B2", marker="o", linestyle="--"),
}
STARTS = {"zeros": "zero start", "normal": "N(0,1) start"}
NAMES = {"vp": "VP", "adavipro": "AdaViPro", "linear": "linear probe"}


def _subplots(rows: int, columns: int, width: float, height: float):
    """A figure, drawn without a screen, and its axes [rows, columns]; sizes in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def accuracy_over_size(grouped: Accuracies, zero_shot: float, path: Path) -> None:
    """Accuracy over prompt size, as AdaViPro's figure 2: mean and deviation over seeds."""
    figure, [[axes]] = _subplots(1, 1, 6.4, 4.2)
    for (method, init), style in _STYLES.items():
        points = {
            s.size: np.array(list(v.values()))
            for s, v in grouped.items()
            if (s.method, s.init) == (method, init)
        }
        if points:
            sizes = sorted(points)
            means = [100 * points[s].mean() for s in sizes]
            deviations = [100 * points[s].std(ddof=1) if len(points[s]) > 1 else 0 for s in sizes]
            label = f"{NAMES[method]}, {STARTS[init]}"
            axes.errorbar(sizes, means, deviations, capsize=3, label=label, **style)
    axes.axhline(100 * zero_shot, color="black", linewidth=1, label="zero-shot (TP)")
    for setting, values in grouped.items():
        if setting.method == "linear":  # far above: a line would flatten all the others
            mean = 100 * np.mean(list(values.values()))
            axes.plot([], [], " ", label=f"linear probe: {mean:.1f} %, not drawn")
    axes.set_xticks(sorted({s.size for s in grouped if s.size}))
    axes.set_xlabel("prompt size: width of the padding in pixels (the largest covers the image)")
    axes.set_ylabel("test accuracy (%)")
    axes.grid(alpha=0.3)
    figure.legend(fontsize=8, ncols=3, loc="outside upper center")
    figure.savefig(path, dpi=150)


def _pixels(x: np.ndarray) -> np.ndarray:
    """Normalised pixels as a screen shows them; a prompt's values are clipped to 0..1."""
    return np.clip(np.asarray(x) * STD + MEAN, 0, 1)


def prompted_images(run: Run, params: Any, indices: np.ndarray) -> dict[str, np.ndarray]:
    """What a trained run does to test images.

    Returns:
      "image" and "prompted" [n, R, R, 3] in 0..1, and for a run with a mask "edges" [n, R, R] and
      "marks" [n, g, g], with NaN where the template has no parameters.
    """
    x = preprocess_batch(run.dataset.test.fetch(indices), run.model.resolution)
    places = evaluation_places(run.root, indices)
    after, out = run.model.apply(variables_of(params, run.frozen), x, places, method="prompted")
    shown = {"image": _pixels(x), "prompted": _pixels(after)}
    if run.model.mask is not None:
        edges = np.abs(np.asarray(EDGES[run.model.mask.edge](x))).mean(-1)
        shown["edges"] = edges / edges.max((1, 2), keepdims=True)
        marks = np.asarray(jax.device_get(out["marks"]))
        active = np.broadcast_to(out["active"], marks.shape)
        shown["marks"] = np.where(active, marks, np.nan)
    return shown


def gallery(columns: list[tuple[str, np.ndarray]], title: str, path: Path) -> None:
    """A grid like AdaViPro's figure 4: a row per image, a titled column per treatment."""
    import matplotlib

    rows = len(columns[0][1])
    width, height = 1.2 * len(columns), 1.2 * rows + 0.7
    figure, axes = _subplots(rows, len(columns), width, height)
    marks_map = matplotlib.colormaps["cividis"].with_extremes(bad="#dddddd")
    for column, (name, images) in enumerate(columns):
        for row in range(rows):
            cell, image = axes[row, column], images[row]
            if image.ndim == 3:
                cell.imshow(image, interpolation="nearest")
            else:
                colours = marks_map if np.isin(image[~np.isnan(image)], (0, 1)).all() else "gray"
                cell.imshow(image, cmap=colours, vmin=0, vmax=1, interpolation="nearest")
            cell.set_xticks([])
            cell.set_yticks([])
        axes[0, column].set_title(name, fontsize=8)
    figure.suptitle(f"{title}; masks: yellow on, blue off, grey without prompt", fontsize=9)
    figure.savefig(path, dpi=150)
