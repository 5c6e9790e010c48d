"""Writes the report of a set of runs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vprompt_jax.report import figures, tables
from vprompt_jax.report.results import accuracies, gather, setting_of
from vprompt_jax.train.run import load_run

_IMAGES_SHOWN = 6


def write(workdirs: Sequence[Path], out: Path) -> list[Path]:
    """Writes `table.md`, `runs.csv`, `accuracy_over_size.png` and, per start, `prompted_START.png`.

    The figures appear where the runs have prompts to show.

    Args:
      workdirs: finished runs on one dataset.
      out: folder to write to.

    Returns:
      The files written.

    Raises:
      UserError: if a run has not finished, or the datasets differ.
    """
    results = gather(workdirs)
    grouped = accuracies(results)
    zero_shot = results[0]["zero_shot_accuracy"]
    written = [out / "table.md", out / "runs.csv"]
    text = f"Zero-shot accuracy (test): {100 * zero_shot:.1f} %\n\n"
    text += tables.accuracy_table(results, grouped)
    differences = tables.difference_table(grouped, zero_shot)
    written[0].write_text(f"{text}\n{differences}" if differences else text)
    written[1].write_text(tables.as_csv(results))
    if any(setting.size for setting in grouped):
        written.append(out / "accuracy_over_size.png")
        figures.accuracy_over_size(grouped, zero_shot, written[-1])
    for start in sorted({setting.init for setting in grouped if setting.init}):
        written.append(out / f"prompted_{start}.png")
        _gallery([r for r in results if setting_of(r).init == start], written[-1])
    return written


def _gallery(results, path: Path) -> None:
    """Every prompt size of the first seed: the same test images under VP and AdaViPro."""
    first = min(r["seed"] for r in results)
    chosen = [r for r in results if r["seed"] == first]
    chosen.sort(key=lambda r: (r["prompt_size"], r["method"] == "adavipro"))
    columns: list[tuple[str, np.ndarray]] = []
    for result in chosen:
        run, params = load_run(result["workdir"])
        count = len(run.dataset.test)
        indices = np.linspace(0, count - 1, _IMAGES_SHOWN).astype(np.int32)
        shown = figures.prompted_images(run, params, indices)
        if not columns:
            columns.append(("image", shown["image"]))
        if "edges" in shown and all(title != "edges" for title, _ in columns):
            columns.insert(1, ("edges", shown["edges"]))
        name = figures.NAMES.get(result["method"], result["method"])
        columns.append((f"{name}\n{result['prompt_size']} px", shown["prompted"]))
        if "marks" in shown:
            columns.append(("its mask", shown["marks"]))
    figures.gallery(columns, f"prompts with {figures.STARTS[setting_of(chosen[0]).init]}", path)
