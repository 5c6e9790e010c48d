"""Launches what a config describes: one run, or the runs of a sweep."""

import functools
import shlex
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from vprompt_jax.config import resolve
from vprompt_jax.config import sweep as sweeps
from vprompt_jax.process import cluster
from vprompt_jax.process.errors import UserError
from vprompt_jax.process.program import set_up_process, user_errors

_LESS_MEMORY = (
    "lower config.optim.batch_size or config.eval.batch_size, set config.model.remat=blocks, or "
    "config.cache.storage=disk or config.cache.mode=off if the cached activations are too large "
    "(another config is another run, in another --workdir)"
)


def print_commands(config: ConfigDict, command: list[str]) -> None:
    """Prints a command per run of a sweep, for a scheduler; `command` is this process's."""

    with user_errors():
        if not config.sweep:
            raise UserError("--print_commands: this config is no sweep; it is one run as it is")
        shared = [a for a in command if a.lstrip("-").split("=")[0] != "print_commands"]
        for name in sweeps.expand(config):
            print(shlex.join([*shared, f"--run={name}"]))


def preview(config: ConfigDict, which: str | None, overridden: Collection[str]) -> None:
    """Prints what a config's run would take; of a sweep's, `which`, or the first of all.

    Arguments are those of `launch`.
    """
    with user_errors(_LESS_MEMORY):
        set_up_process()
        from vprompt_jax.launching import dry_run

        count = len(config.sweep)
        if config.sweep or which is not None:
            sweeps.check_overridden(sweeps.expand(config), overridden)
            name, config = sweeps.choose(config, which or "0")
            overridden = ()
            print(f"run         {name}, one of {count}")
        print(dry_run.describe(config, overridden))


def launch(
    config: ConfigDict,
    workdir: str | None,
    which: str | None = None,
    overridden: Collection[str] = (),
    command: Sequence[str] = ("python", "launch.py"),
    *,
    report: bool = False,
) -> None:
    """Runs one config, or each run of a sweep, or `which` of them, and prints what came out.

    Args:
      config: as the config file and the command line give it.
      workdir: of the run, or of the sweep's folders; None for the default.
      which: name or number of one run of the sweep.
      overridden: dotted config keys that the command line sets.
      command: this process's, for the commands that are printed.
      report: whether to write a single run's report, too.
    """
    with user_errors(_LESS_MEMORY):
        set_up_process()
        cluster.join()
        from vprompt_jax.evaluate import also
        from vprompt_jax.launching import summary
        from vprompt_jax.train import result as result_lib
        from vprompt_jax.train import run as run_lib

        where = Path(workdir) if workdir else None
        several = config.sweep or which is not None
        if several:
            sweeps.check_overridden(sweeps.expand(config), overridden)
        else:
            resolve(config, overridden)
        if config.search.strategy != "none":
            from vprompt_jax.launching import search

            where = where or Path("runs") / config.name
            config = search.chosen(config, where, which)
        if several:
            from vprompt_jax.launching import sweep

            where = where or Path("runs") / config.name
            if which is None:
                sweep.run(config, where)
                return
            name, config = sweeps.choose(config, which)
            where, overridden = where / name, ()
        resolved = resolve(config, overridden)
        where = where or run_lib.default_workdir(resolved)
        finished = result_lib.read(where) is not None
        if not finished:
            also.find([resolved])
        result = run_lib.fit(resolved, where, then=functools.partial(summary.draw, where))
        if not cluster.is_first():
            return
        if finished:
            print(f"{where} holds this run, finished; not run again.")
            if result["steps"] and not (where / "checkpoints").is_dir():
                again = result_lib.AGAIN.format(where)
                print(f"Its checkpoints are gone, which predict and export need: {again}.")
        for line in also.measure(where):
            print(line)
        if report:
            from vprompt_jax import report as reports

            reports.write([where], where / "report", title=str(config.name))
        alone = bool(workdir) or which is not None
        _conclude(result, config, where, overridden, command, alone)


def _conclude(
    result: dict[str, Any],
    config: ConfigDict,
    workdir: Path,
    overridden: Collection[str],
    command: Sequence[str],
    alone: bool,
) -> None:
    """Prints what a run gave, beside other methods' unless it stands alone, and what is next."""
    from vprompt_jax.launching import summary

    beside = None if alone else command
    print(f"\n{summary.table(result, config, overridden, beside)}\n")
    if result["regions_on"] is not None:
        print(f"regions switched on: {result['regions_on']:.2%}")
    best = result["test_accuracy_best_val"]
    if best is not None and best != result["test_accuracy"]:
        print(f"at the step that was best on val: {best:.2%}")
    if (workdir / summary.PICTURE).is_file():
        print(f"prompts and masks: {workdir / summary.PICTURE}")
    page = workdir / "report" / "report.html"
    if page.is_file():
        print(f"report: {page}")
    print(f"results in {workdir}\n\nnext:")
    for line in summary.next_commands(workdir, command):
        print(f"  {line}")
