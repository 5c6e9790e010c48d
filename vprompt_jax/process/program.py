"""Shared by the command-line programs: setting up the process, and printing errors."""

import contextlib
import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator

from vprompt_jax.process import cluster, failures, memory, paths
from vprompt_jax.process.errors import UserError
from vprompt_jax.process.escapes import printable_lines


@contextlib.contextmanager
def user_errors(less_memory: str = "choose a smaller batch") -> Iterator[None]:
    """Turns whatever a user can do something about into one message and a non-zero exit status.

    That is a `UserError`, any error of the operating system, a lack of memory, a request to stop
    and, in one process of several, the loss of another. Anything else is a defect and keeps its
    traceback; VPROMPT_TRACEBACK=1 shows those of the others as well.

    Args:
      less_memory: what makes the command need less memory, for the message.
    """
    _print_any_name()
    try:
        yield
    except BaseException as error:
        explained = failures.explain(error, less_memory)
        if explained is None:
            if isinstance(error, Exception) and cluster.has_others():
                traceback.print_exc()
                cluster.leave(1)  # the ordinary way out would wait for the others, and they for it
            raise
        if failures.shows_traceback():
            traceback.print_exc()
        message, status = explained
        if isinstance(error, KeyboardInterrupt | BrokenPipeError):
            _leave_quietly(status)
        if message:
            # A name in the message may hold what a terminal would obey.
            print(printable_lines(message), file=sys.stderr)
        cluster.leave(status)


def _print_any_name() -> None:
    """Lets the terminal show names of files that are not valid text."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _leave_quietly(status: int) -> None:
    """Keeps the rest of a process from writing a traceback as it ends.

    Python flushes its output and joins its threads then: a closed pipe or a second Ctrl-C would
    show as an exception of the interpreter's own.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, lambda number, frame: os._exit(status))
    if status == 128 + signal.SIGPIPE:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


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
    # Orbax logs errors with a traceback from a thread of its own, although it raises them, too, and
    # warns of what read-only checkpoints imply.
    logging.get_absl_logger().addFilter(lambda record: "/orbax/" not in record.pathname)
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        with contextlib.suppress(UserError):  # no home folder: programs are compiled every time
            jax.config.update("jax_compilation_cache_dir", str(paths.cache_folder() / "jax"))
