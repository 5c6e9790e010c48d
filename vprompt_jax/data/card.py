"""A dataset's card: what the table says about it, and what is on this disk."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vprompt_jax.data.dataset import Dataset
from vprompt_jax.data.info import DatasetInfo, ensemble, texts
from vprompt_jax.process.escapes import in_figure
from vprompt_jax.process.printable import printable

_WIDTH = 100
_GRID = (6, 10)  # rows and columns of the sample picture


def _line(title: str, value: str) -> str:
    text = f"{title + ':':<13}{printable(value)}"
    return textwrap.fill(text, _WIDTH, subsequent_indent=" " * 13)


def _listed(values: Sequence[str], most: int) -> str:
    rest = f", ... ({len(values) - most} more)" if len(values) > most else ""
    return ", ".join(map(repr, values[:most])) + rest


def of_row(name: str, row: DatasetInfo) -> str:
    """Describes a dataset from its row alone, without loading it."""
    renamed = tuple(texts()["rename"].get(row.texts, {}).values())
    names = texts()["classes"].get(row.names, renamed)
    names = names if len(names) == row.classes else ()
    lines = [
        _line("dataset", f"{name}: {row.about}"),
        _line("source", f"TFDS {row.tfds}" if row.tfds else "by hand"),
        _line("site", row.url),
        _line("licence", row.licence),
        _line("classes", str(row.classes)),
        _line("names", _listed(names, 20) if names else "those of the source, as words"),
        _line("stored", f"{row.side} x {row.side} pixels" if row.side else "several sizes"),
        _line("template", repr(row.template)),
        _line("ensemble", _listed(ensemble(row), 4)),
    ]
    if row.sizes:
        parts = zip(("train", "val", "test"), row.sizes, strict=True)
        lines.insert(5, _line("sizes", ", ".join(f"{n} {c:,}" for n, c in parts if c)))
    if row.for_evaluation:
        lines.append(_line("use", "evaluation alone: there are no training images"))
    elif row.splits and set(row.splits) != {"train", "val", "test"}:
        missing = [s for s in ("test", "val") if s not in row.splits]
        lines.append(_line("cut by hash", " and ".join(missing)))
    if row.vtab:
        lines.append(_line("VTAB-1k", ", ".join(f"{k} = {v}" for k, v in row.vtab.items())))
    if row.fetch:
        lines.append(_line("by hand", row.fetch))
    return "\n".join(lines)


def of_dataset(dataset: Dataset) -> str:
    """Describes a loaded dataset: sizes, classes, and the hashes that identify its splits."""
    lines = [
        _line("dataset", dataset.name),
        _line("classes", f"{len(dataset.class_names)}: {_listed(dataset.class_names, 20)}"),
        _line("template", repr(dataset.template)),
        _line("ensemble", _listed(dataset.ensemble, 4)),
        _line("fingerprint", dataset.fingerprint),
    ]
    for name, split in dataset.splits():
        if not len(split):
            continue
        counts = np.bincount(split.labels, minlength=len(dataset.class_names))
        shape = "x".join(map(str, split.fetch(np.arange(1)).shape[1:]))
        lines.append(
            _line(name, f"{len(split):,} images {shape}, {counts.min():,} to {counts.max():,} per")
            + f" class, SHA-256 of keys {split.digest[:16]}"
        )
    lines += [_line("skipped", line) for line in dataset.skipped]
    lines += [_line("note", line) for line in dataset.notes]
    return "\n".join(lines)


def save_grid(dataset: Dataset, path: Path) -> None:
    """Draws images of as many classes as fit, in order of their keys, and saves a PNG.

    They are training images, or test images where there are no others.
    """
    from matplotlib.figure import Figure

    shown = dataset.train if len(dataset.train) else dataset.test
    order = sorted(range(len(shown)), key=lambda i: shown.keys[i])
    turn: dict[int, int] = {}  # by class, the rank of its last image; rank 0 of all comes first
    ranked = []
    for i in order:
        label = int(shown.labels[i])
        turn[label] = turn.get(label, -1) + 1
        ranked.append((turn[label], label, i))
    chosen = [i for _, _, i in sorted(ranked)[: _GRID[0] * _GRID[1]]]
    images = shown.fetch(np.array(chosen))
    figure = Figure(figsize=(_GRID[1] * 1.3, _GRID[0] * 1.5), layout="constrained")
    for position, (i, image) in enumerate(zip(chosen, images, strict=True)):
        axes = figure.add_subplot(*_GRID, position + 1)
        axes.imshow(image, interpolation="nearest")
        title = textwrap.shorten(dataset.class_names[shown.labels[i]], 22, placeholder="...")
        axes.set_title(in_figure(title), size=6)
        axes.set_axis_off()
    figure.savefig(path, dpi=100)
