"""Writes the report of a set of runs: tables, figures and a page with all of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vprompt_jax.clip.checkpoints.locate import public_name
from vprompt_jax.process.errors import UserError
from vprompt_jax.process.escapes import in_markdown
from vprompt_jax.report import (
    differences,
    figures,
    layers,
    page,
    pictures,
    protocols,
    results,
    tables,
    verdicts,
)
from vprompt_jax.report.results import Record
from vprompt_jax.report.sources import Sources, where_possible


def write(
    workdirs: Sequence[Path],
    out: Path,
    *,
    by_dataset: bool = False,
    title: str = "Report",
    checkpoints: Sequence[str] = (),
    data_dir: str | None = None,
) -> list[Path]:
    """Writes `report.html`, `table.md`, `table.tex`, `runs.csv`, and figures as PNG and SVG; and
    `tables.csv`, where there are tables of a protocol.

    A figure appears where the runs have what it shows. What needs weights, checkpoints or images
    that are gone is left out, and a line says so.

    Args:
      workdirs: finished runs.
      out: folder to write to; made if need be.
      by_dataset: whether different datasets are meant to stand beside each other.
      title: of the page.
      checkpoints: where the runs' CLIPs are now, if they have moved.
      data_dir: where the images are now, if they have moved.

    Returns:
      The files written.

    Raises:
      UserError: if a run has not finished, the datasets differ without being meant to, or two runs
        have the same setting and seed.
    """
    records = results.gather(workdirs, by_dataset=by_dataset)
    groups = results.group(records)
    several = len({r.dataset for r in records}) > 1
    grids = protocols.grids(groups)
    shown = [*(grid.table() for grid in grids), tables.summary(groups)]
    beside, note = tables.against_published(records)
    more = (differences.table(groups), beside)
    shown += [t for t in more if t is not None]
    facts = _facts(records)
    found = Sources(checkpoints, data_dir)

    drawn = pictures.of_shots(groups) if several else []
    if not several:
        name, best = verdicts.best_of(groups)
        compared = where_possible("comparison", lambda: verdicts.against_best(groups), None)
        of_runs = [verdicts.measures(groups), compared, verdicts.by_class(name, best)]
        shown += [t for t in of_runs if t is not None]
        drawn = pictures.of_charts(groups)
        positions = "features over positions"
        none: dict[str, list[dict[str, Any]]] = {}
        if by_tower := where_possible(positions, lambda: layers.measured(records, found), none):
            shown.append(layers.table(by_tower))
            drawn.append(pictures.of_layers(by_tower))
        prompted = "pictures of prompted images"
        drawn += where_possible(prompted, lambda: pictures.of_prompts(groups, found), [])
        drawn += where_possible("mistakes", lambda: pictures.of_verdicts(name, best, found), [])
    names = ["report.html", "table.md", "table.tex", "runs.csv", *(["tables.csv"] if grids else [])]
    names += [picture.name + suffix for picture in drawn for suffix in (".png", ".svg")]
    _refuse_other_files(out, names)
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for picture in drawn:
        written += figures.save(picture.figure, out / f"{picture.name}.png")
    markdown = (
        "\n".join(
            [in_markdown(facts) + "\n", *(t.markdown() for t in shown), in_markdown(note)]
        ).rstrip()
        + "\n"
    )
    texts = {
        "report.html": page.render(title, facts, shown, note, drawn, records, out),
        "table.md": markdown,
        "table.tex": "\n".join(t.latex() for t in shown),
        "runs.csv": tables.as_csv(records),
    }
    if grids:
        texts["tables.csv"] = protocols.as_csv(grids)
    for name, text in texts.items():
        (out / name).write_text(text)
    return [*(out / name for name in texts), *written]


def _refuse_other_files(out: Path, names: Sequence[str]) -> None:
    """Lets a report replace an older one, and nothing else.

    Raises:
      UserError: if a file of one of the names is there and no report is.
    """
    page_there = out / "report.html"
    if page_there.is_file() and page.MADE_BY in page_there.read_text(errors="replace"):
        return
    others = [name for name in names if (out / name).exists()]
    if others:
        raise UserError(
            f"{out} holds {', '.join(others)}, which no report wrote: choose another --out, or "
            "move them away"
        )


def _size(record: Record, split: str) -> str:
    """The number of a split's images, marked where the split is not the source's own."""
    cut = " (cut by hash)" if split in record.result.get("splits_cut", ()) else ""
    return f"{record.result['split_sizes'][split]:,}{cut}"


def _facts(records: Sequence[Record]) -> str:
    """What all runs share, in a sentence."""
    parts = []
    for dataset in sorted({r.dataset for r in records}):
        members = [r for r in records if r.dataset == dataset]
        sizes = {
            split: " / ".join(sorted({_size(r, split) for r in members}, key=lambda t: (len(t), t)))
            for split in ("train", "val", "test")
        }
        accuracies = sorted({r.result["zero_shot_accuracy"] for r in members} - {None})
        shown = list(dict.fromkeys(f"{100 * a:.1f} %" for a in accuracies))
        zero_shot = " / ".join(shown) or "none (no text tower)"
        protocols = ", ".join(sorted({r.result["protocol"] for r in members}))
        parts.append(
            f"{dataset}: {sizes['train']} train, {sizes['val']} val and {sizes['test']} test "
            f"images; protocol {protocols}; zero-shot accuracy on test {zero_shot}"
        )
    towers = ", ".join(sorted({public_name(r.config["model.checkpoint"]) for r in records}))
    untrained = [r for r in records if not r.result["steps"] and r.result["trainable_parameters"]]
    if untrained:
        parts.append(
            f"{len(untrained)} of the runs trained nothing (0 steps): theirs are accuracies of the "
            "start"
        )
    runs = "1 run" if len(records) == 1 else f"{len(records)} runs"
    return f"{runs} of {towers}. " + ". ".join(parts) + "."
