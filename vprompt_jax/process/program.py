"""Shared by the command-line programs: setting up the process, and printing errors."""

import contextlib
import errno
import os
import signal
import sys
import traceback
from collections.abc import Iterator

from vprompt_jax.process import cluster, memory, paths
from vprompt_jax.process.errors import Interrupted, UserError
from vprompt_jax.process.escapes import printable_lines


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """Prints a user's mistake, or a full disk, as one message and exits with a non-zero status."""
    try:
        yield
    except UserError as error:
        # A name in the message may contain what a terminal would obey.
        print("error:", printable_lines(str(error)), file=sys.stderr)
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
        # JAX has no error of its own for a lost process.
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
    """Quiets TensorFlow and Orbax, and has compiled programs and a CPU's memory reused.

    Compiled programs are kept between processes, in $JAX_COMPILATION_CACHE_DIR or in jax/ of
    `paths.cache_folder`. A CPU's memory is kept between steps (`memory.keep_freed`).
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    memory.keep_freed()
    import jax
    from absl import logging

    logging.set_verbosity(logging.WARNING)
    # Orbax logs errors with a traceback from a thread of its own, although it raises them, too.
    logging.get_absl_handler().addFilter(lambda record: "/orbax/" not in record.pathname)
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(paths.cache_folder() / "jax"))
