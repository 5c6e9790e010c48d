"""Beside accuracy over the position of an activation prompt: where features are global."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

from vprompt_jax.clip.checkpoints.locate import public_name
from vprompt_jax.methods import registry
from vprompt_jax.process.escapes import in_figure
from vprompt_jax.report import depth, figures
from vprompt_jax.report.results import Record
from vprompt_jax.report.sources import Sources
from vprompt_jax.report.tables import Table

_IMAGES = 256  # of test, on which attention and features are measured


def measured(records: Sequence[Record], found: Sources) -> dict[str, list[dict[str, Any]]]:
    """`depth.measure` of every tower on which runs compare positions of activation prompts.

    Args:
      records: finished runs.
      found: where their weights and images are.

    Returns:
      Checkpoint -> a row per position; {} where no two positions are compared.
    """
    first: dict[str, Record] = {}
    positions: dict[str, set[Any]] = {}
    for record in records:
        if where := record.config.get(registry.position_key() or ""):
            tower = record.config["model.checkpoint"]
            first.setdefault(tower, record)
            positions.setdefault(tower, set()).add(tuple(where))
    made = {}
    for tower, record in first.items():
        if len(positions[tower]) < 2:
            continue
        model = found.model(record)
        test = found.dataset(record, model).test
        images = test.fetch(np.linspace(0, len(test) - 1, min(_IMAGES, len(test))).astype(int))
        clip, frozen = model.model.clip, jax.device_get(model.adaptation.frozen)
        variables = {"params": frozen["params"]["clip"]}
        if "batch_stats" in frozen:
            variables["batch_stats"] = frozen["batch_stats"]["clip"]
        pixels: Any = model.model.apply(frozen, images, method="pixels")
        made[public_name(tower)] = depth.measure(clip, variables, pixels)
    return made


def table(rows_by_tower: dict[str, list[dict[str, Any]]]) -> Table:
    """A row per tower and position."""
    rows = [
        [
            tower,
            str(row["position"]),
            f"{row['cka_with_last']:.3f}",
            f"{row['attention_distance']:.1f}" if "attention_distance" in row else "-",
        ]
        for tower, rows in rows_by_tower.items()
        for row in rows
    ]
    header = ["tower", "position", "CKA with the features", "attention distance (px)"]
    return Table("Where features are global", header, rows)


def figure(rows_by_tower: dict[str, list[dict[str, Any]]]) -> Figure:
    """CKA with the last features, and attention distance, over positions; a line per tower."""
    spans = any("attention_distance" in r for rows in rows_by_tower.values() for r in rows)
    drawn, [axes] = figures.subplots(1, 1 + spans, 4.6 * (1 + spans), 3.8)
    panels = [("cka_with_last", "linear CKA with the last features")]
    panels += [("attention_distance", "mean attention distance (pixels)")] * spans
    for cell, (key, label) in zip(axes, panels, strict=True):
        for number, (tower, rows) in enumerate(rows_by_tower.items()):
            points = [(r["position"], r[key]) for r in rows if key in r]
            if points:
                colour, marker = figures.COLOURS[number % 8], figures.MARKERS[number % 7]
                cell.plot(
                    *zip(*points, strict=True), color=colour, marker=marker, label=in_figure(tower)
                )
        cell.set_xlabel("position (block)")
        cell.set_ylabel(label)
        cell.grid(alpha=0.3)
        cell.legend(fontsize=8)
    axes[0].set_ylim(0, 1.05)
    return drawn
