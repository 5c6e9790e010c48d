"""Writes the report of a set of runs: tables, figures and a page with all of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from vprompt_jax.clip.checkpoints.locate import public_name
from vprompt_jax.measures import table as predictions
from vprompt_jax.process.errors import UserError
from vprompt_jax.process.escapes import in_markdown
from vprompt_jax.report import figures, gallery, layers, page, results, tables, verdicts
from vprompt_jax.report.results import Groups, Record
from vprompt_jax.report.sources import Sources, where_possible

_MOST_PROMPTS = 12  # shown in pictures


def write(
    workdirs: Sequence[Path],
    out: Path,
    *,
    by_dataset: bool = False,
    title: str = "Report",
    checkpoints: Sequence[str] = (),
    data_dir: str | None = None,
) -> list[Path]:
    """Writes `report.html`, `table.md`, `table.tex`, `runs.csv`, and figures as PNG and SVG.

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
    shown = [tables.datasets(groups)] if several else []
    shown.append(tables.summary(groups))
    beside, note = tables.against_published(records)
    shown += [t for t in (tables.differences(groups), beside) if t is not None]
    facts = _facts(records)
    found = Sources(checkpoints, data_dir)

    pictures: list[tuple[str, Figure, str]] = []
    if not several:
        name, best = verdicts.best_of(groups)
        compared = where_possible("comparison", lambda: verdicts.against_best(groups), None)
        of_runs = [verdicts.measures(groups), compared, verdicts.by_class(name, best)]
        shown += [t for t in of_runs if t is not None]
        for key, label in figures.axes().items():
            if (figure := figures.over(groups, key)) is not None:
                name = f"accuracy_over_{key.split('.')[-1]}"
                pictures.append((name, figure, f"Test accuracy over {label}."))
        caption = "Test accuracy against trained parameters."
        pictures.append(("parameters", figures.parameters(groups), caption))
        figure = where_possible("curves of training", lambda: figures.curves(groups), None)
        if figure is not None:
            pictures.append(("curves", figure, "Training, mean over seeds."))
        positions = "features over positions"
        none: dict[str, list[dict[str, Any]]] = {}
        if by_tower := where_possible(positions, lambda: layers.measured(records, found), none):
            shown.append(layers.table(by_tower))
            caption = "Where the frozen tower's features are global, beside AP's accuracy."
            pictures.append(("layers", layers.figure(by_tower), caption))
        prompted = "pictures of prompted images"
        pictures += where_possible(prompted, lambda: _galleries(groups, found), [])
        pictures += where_possible("mistakes", lambda: _verdicts(name, best, found), [])
    names = ["report.html", "table.md", "table.tex", "runs.csv"]
    names += [name + suffix for name, _, _ in pictures for suffix in (".png", ".svg")]
    _refuse_other_files(out, names)
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for name, figure, _ in pictures:
        written += figures.save(figure, out / f"{name}.png")
    markdown = (
        "\n".join(
            [in_markdown(facts) + "\n", *(t.markdown() for t in shown), in_markdown(note)]
        ).rstrip()
        + "\n"
    )
    images = [(out / f"{name}.png", caption) for name, _, caption in pictures]
    texts = {
        "report.html": page.render(title, facts, shown, note, images, records),
        "table.md": markdown,
        "table.tex": "\n".join(t.latex() for t in shown),
        "runs.csv": tables.as_csv(records),
    }
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


def _facts(records: Sequence[Record]) -> str:
    """What all runs share, in a sentence."""
    parts = []
    for dataset in sorted({r.dataset for r in records}):
        members = [r for r in records if r.dataset == dataset]
        sizes = members[0].result["split_sizes"]
        accuracies = sorted({r.result["zero_shot_accuracy"] for r in members} - {None})
        shown = list(dict.fromkeys(f"{100 * a:.1f} %" for a in accuracies))
        zero_shot = " / ".join(shown) or "none (no text tower)"
        protocols = ", ".join(sorted({r.result["protocol"] for r in members}))
        parts.append(
            f"{dataset}: {sizes['train']:,} train, {sizes['val']:,} val and {sizes['test']:,} test "
            f"images; protocol {protocols}; zero-shot accuracy on test {zero_shot}"
        )
    towers = ", ".join(sorted({public_name(r.config["model.checkpoint"]) for r in records}))
    untrained = [r for r in records if not r.result["steps"] and r.result["trainable_parameters"]]
    if untrained:
        parts.append(
            f"{len(untrained)} of the runs trained nothing (0 steps): theirs are accuracies of the "
            "start"
        )
    return f"{len(records)} runs of {towers}. " + ". ".join(parts) + "."


def _verdicts(name: str, best: Record, found: Sources) -> list[tuple[str, Figure, str]]:
    """What the best setting's run is right and wrong about."""
    made = []
    if (figure := verdicts.confusion(best)) is not None:
        caption = f"Which class is taken for which, in percent of a class's test images: {name}."
        made.append(("confusion", figure, caption))
    rows = predictions.read(best.workdir, "test")
    if rows is None:
        return made
    caption = f"Accuracy over confidence on test: {name}. An area shows how many images it is of."
    made.append(("reliability", verdicts.reliability(rows), caption))

    def of_mistakes() -> list[tuple[str, Figure, str]]:
        wrong = verdicts.worst(rows)
        if wrong is None:
            return []
        model = found.model(best)
        images = found.dataset(best, model).test.fetch(wrong["index"])
        caption = f"The most confident mistakes on test: {name}."
        return [("mistakes", verdicts.mistakes(model, images, wrong), caption)]

    return made + where_possible("pictures of mistakes", of_mistakes, [])


def _galleries(groups: Groups, found: Sources) -> list[tuple[str, Figure, str]]:
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
        caption = (
            f"One test image per class under {'; '.join(name for name, _ in part)} "
            f"(seed {part[0][1].result['seed']}). Prompts are clipped to what a screen can show."
        )
        figure = gallery.prompted(models[start : start + len(part)], images, names)
        made.append((f"prompted_{number}", figure, caption))
    return made
