"""What the command-line programs share: set-up of the process, and errors as one message."""

import contextlib
import errno
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vprompt_jax.errors import UserError


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """Turns a user's mistake, or a full disk, into one message and a non-zero exit status."""
    try:
        yield
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        sys.exit(f"error: no space left on the disk: {error}; earlier checkpoints are intact")
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the newest checkpoint", file=sys.stderr)
        sys.exit(130)


def set_up_process() -> None:
    """Quiets TensorFlow and Orbax, and keeps compiled programs between processes.

    The cache folder is JAX_COMPILATION_CACHE_DIR, or ~/.cache/vprompt_jax/jax.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import jax
    from absl import logging

    logging.set_verbosity(logging.WARNING)
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(cache / "vprompt_jax" / "jax"))


def print_commands(config, argv: list[str]) -> None:
    """Prints a command per run of a sweep, for a scheduler; `argv` is this process's command."""
    from vprompt_jax import sweep

    with user_errors():
        if not config.sweep:
            raise UserError("--print_commands: this config is no sweep; it is one run as it is")
        shared = [a for a in argv if a.lstrip("-").split("=")[0] != "print_commands"]
        for name in sweep.expand(config):
            print(shlex.join(["python", *shared, f"--run={name}"]))


def launch(config, workdir: str | None, only: str | None = None) -> None:
    """Runs one config, or each run of a sweep (or `only` one), and prints what came out."""
    with user_errors():
        if only is not None and not config.sweep:
            raise UserError("--run names a run of a sweep; this config is no sweep")
        set_up_process()
        from vprompt_jax.train import run as run_lib

        if config.sweep:
            from vprompt_jax import sweep

            sweep.run(config, Path(workdir) if workdir else Path("runs") / config.name, only)
            return
        where = Path(workdir) if workdir else run_lib.default_workdir(config)
        finished = run_lib.read_result(where) is not None
        result = run_lib.fit(config, where)
        if finished:
            print(f"{where} holds this run, finished; not run again.")
        print(_summary(result, where))


def _summary(result: dict[str, Any], workdir: Path) -> str:
    def percent(value):
        return "-" if value is None else f"{value:.2%}"

    rows = [
        ("zero-shot accuracy (test)", percent(result["zero_shot_accuracy"])),
        (f"{result['method']} accuracy (test, last step)", percent(result["test_accuracy"])),
        (
            f"{result['method']} accuracy (test, best on val)",
            percent(result["test_accuracy_best_val"]),
        ),
        ("regions switched on", percent(result["regions_on"])),
        ("trainable parameters", f"{result['trainable_parameters']:,}"),
        ("steps", f"{result['steps']:,}"),
        ("seconds", f"{result['seconds']:.0f}"),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {value:>10}" for name, value in rows if value != "-"]
    return "\n".join(["", *lines, "", f"results in {workdir}"])
