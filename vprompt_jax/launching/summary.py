"""What the terminal shows when a run has finished: its accuracies beside other methods', a picture,
and what to do next."""

import shlex
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import ml_collections

from vprompt_jax.config import resolve
from vprompt_jax.methods.table import title_of
from vprompt_jax.process.errors import UserError
from vprompt_jax.train import result as result_lib
from vprompt_jax.train.loop import Outcome
from vprompt_jax.train.run import default_workdir
from vprompt_jax.train.training import Training

# What a reader compares a method with; each is one more command.
BESIDE = ("vp", "adavipro", "ap", "linear")
PICTURE = "prompted.png"
_SHOWN = 5  # classes in it


def table(
    result: dict[str, Any], config: ml_collections.ConfigDict, overridden: Collection[str],
    command: Sequence[str] | None,
) -> str:  # fmt: skip
    """The run's accuracies on test, and those of other methods under the same config.

    A method that has run in its default workdir has a row of numbers; another has the command that
    would run it.

    Args:
      result: of the run.
      config: the run's, as the user gave it.
      overridden: dotted config keys that the command line sets.
      command: this process's, to which a method can be added; None to show the run alone.
    """
    rows = [("", "test accuracy", "trained parameters", "seconds")]
    if result["zero_shot_accuracy"] is not None:
        rows.append(("zero-shot", f"{result['zero_shot_accuracy']:.2%}", "0", "-"))
    rows.append(_measured(result))
    commands = []
    for method in BESIDE:
        if command is None or method == result["method"]:
            continue
        other = _other(config, method, overridden)
        if other is None:
            continue
        finished = result_lib.read(default_workdir(other))
        if finished is not None:
            rows.append(_measured(finished))
        else:
            commands.append((title_of(method), _with_method(command, method)))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    widths[0] = max([widths[0], *(len(title) for title, _ in commands)])
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(row[i].rjust(widths[i]) for i in (1, 2, 3))])
        for row in rows
    ]
    lines += [f"{title.ljust(widths[0])}  not run yet: {command}" for title, command in commands]
    if result["test_accuracy"] < (result["zero_shot_accuracy"] or 0.0):
        lines += ["note: without training, the CLIP is right more often on these test images"]
    return "\n".join(line.rstrip() for line in lines)


def _measured(result: dict[str, Any]) -> tuple[str, str, str, str]:
    name = result.get("combination", result["method"])
    return (
        title_of(name),
        f"{result['test_accuracy']:.2%}",
        f"{result['trainable_parameters']:,}",
        f"{result['seconds']:.0f}",
    )


def _other(config: ml_collections.ConfigDict, method: str, overridden: Collection[str]) -> Any:
    """The same config with another method; None if that cannot be run, or it is the same run."""
    other = config.copy_and_resolve_references()
    other.method.name = method
    try:
        return resolve(other, overridden)
    except UserError:
        return None


def _with_method(command: Sequence[str], method: str) -> str:
    """The command that runs another method under the same config."""
    rest = [a for a in command if not a.startswith("--config.method.name")]
    return shlex.join([*rest, f"--config.method.name={method}"])


def draw(workdir: Path, run: Training, outcome: Outcome, result: dict[str, Any]) -> None:
    """Draws what a pixel prompt does to images of a few classes into the run's folder.

    Args:
      workdir: of the run.
      run: that has just finished.
      outcome: of it.
      result: the contents of `result.json`.
    """
    from vprompt_jax.inference.adapted import Adapted
    from vprompt_jax.report import gallery
    from vprompt_jax.report.figures import save

    if "prompt_size" not in result:
        return
    model = Adapted(run.adaptation, outcome.params, outcome.assigned, result)
    test = run.dataset.test
    indices = gallery.one_per_class(test.labels, _SHOWN)
    names = [run.dataset.class_names[label] for label in test.labels[indices]]
    title = title_of(result.get("combination", result["method"]))
    save(gallery.prompted([(title, model)], test.fetch(indices), names), workdir / PICTURE)


def next_commands(workdir: Path, command: Sequence[str]) -> list[str]:
    """Three commands that use a finished run, called as this process was."""
    program = "vprompt" if command[0] == "vprompt" else "python -m vprompt_jax"
    where = shlex.quote(str(workdir))
    return [
        f"{program} predict --workdir {where} IMAGE...",
        f"{program} report {where}",
        f"{program} export --workdir {where} --out FOLDER",
    ]
