"""What the command-line programs share: set-up of the process, and errors as one message."""

import contextlib
import errno
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vprompt_jax import cluster, memory, paths
from vprompt_jax.errors import Interrupted, UserError


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """Turns a user's mistake, or a full disk, into one message and a non-zero exit status."""
    try:
        yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        cluster.leave(1)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        print(
            f"error: no space left on the disk: {error}; earlier checkpoints are intact",
            file=sys.stderr,
        )
        cluster.leave(1)
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        sys.exit(128 + signal.SIGTERM)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the newest checkpoint", file=sys.stderr)
        cluster.leave(130)
    except RuntimeError as error:
        # JAX has no error of its own for a peer that is gone.
        if "jax" not in sys.modules or not sys.modules["jax"].distributed.is_initialized():
            raise
        traceback.print_exc()
        print(
            "error: this process of several has failed, most likely because another one is gone "
            f"({str(error).splitlines()[0]}); the same command, given on all machines, goes on "
            "from the newest checkpoint",
            file=sys.stderr,
        )
        cluster.leave(1)


def set_up_process() -> None:
    """Quiets TensorFlow and Orbax, and keeps compiled programs, and a CPU's memory, for reuse.

    Programs are kept between processes, in $JAX_COMPILATION_CACHE_DIR or in jax/ in
    `paths.cache_folder`; memory between steps (`memory.keep_freed`).
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    memory.keep_freed()
    import jax
    from absl import logging

    logging.set_verbosity(logging.WARNING)
    # What Orbax logs as an error, with a traceback from a thread of its own, it raises as well.
    logging.get_absl_handler().addFilter(lambda record: "/orbax/" not in record.pathname)
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(paths.cache_folder() / "jax"))


def print_commands(config, argv: list[str]) -> None:
    """Prints a command per run of a sweep, for a scheduler; `argv` is this process's command."""
    from vprompt_jax import sweep

    with user_errors():
        if not config.sweep:
            raise UserError("--print_commands: this config is no sweep; it is one run as it is")
        shared = [a for a in argv if a.lstrip("-").split("=")[0] != "print_commands"]
        for name in sweep.expand(config):
            print(shlex.join(["python", *shared, f"--run={name}"]))


def launch(config, workdir: str | None, which: str | None = None) -> None:
    """Runs one config, or each run of a sweep, or `which` of them, and prints what came out."""
    with user_errors():
        set_up_process()
        cluster.join()
        from vprompt_jax.train import run as run_lib

        where = Path(workdir) if workdir else None
        if config.sweep or which is not None:
            from vprompt_jax import sweep

            where = where or Path("runs") / config.name
            if which is None:
                sweep.run(config, where)
                return
            name, config = sweep.choose(config, which)
            where = where / name
        where = where or run_lib.default_workdir(config)
        finished = run_lib.read_result(where) is not None
        result = run_lib.fit(config, where)
        if not cluster.is_first():
            return
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
