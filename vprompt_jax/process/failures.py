"""What is said of an exception that a user can do something about."""

import errno
import signal
import sys

from vprompt_jax.process import cluster
from vprompt_jax.process.environment import is_set
from vprompt_jax.process.errors import Interrupted, UserError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_SPACE = (
    "no space left on the disk: {}; earlier checkpoints are intact: make room, and give the "
)
_NO_SPACE += "same command again"


def explain(error: BaseException, less_memory: str) -> tuple[str, int] | None:
    """The message and the exit status for an exception; None for a defect of the program.

    Args:
      error: what was raised.
      less_memory: what makes the command need less memory.
    """
    match error:
        case UserError():
            return f"error: {error}", 1
        case Interrupted():
            return str(error), 128 + signal.SIGTERM
        case KeyboardInterrupt():
            return "interrupted; the same command goes on from the newest checkpoint", 130
        case BrokenPipeError():  # `... | head` has read enough
            return "", 128 + signal.SIGPIPE
        case OSError():
            return f"error: {_of_system(error)}", 1
        case MemoryError():
            return f"error: out of memory ({_line(error)}): {less_memory}", 1
    if isinstance(error, RuntimeError) and "home directory" in str(error):  # pathlib's
        return "error: this user has no home folder that ~ could mean: set HOME", 1
    if _is_of_jax(error):
        return _of_jax(error, less_memory)
    # TensorFlow, which writes TensorBoard's events and reads TFDS, has errors of its own.
    if "tensorflow" in sys.modules and isinstance(error, sys.modules["tensorflow"].errors.OpError):
        line = _line(error)
        if "No space left" in line:
            return f"error: {_NO_SPACE.format(line)}", 1
        return f"error: TensorFlow cannot read or write a file: {line}", 1
    return None


def shows_traceback() -> bool:
    """Whether a developer wants to see where an exception came from (VPROMPT_TRACEBACK=1)."""
    return is_set("VPROMPT_TRACEBACK")


def _line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _of_system(error: OSError) -> str:
    if error.errno in _FULL:
        return _NO_SPACE.format(error)
    name = error.filename if error.filename is not None else ""
    reason = error.strerror or _line(error)
    match error:
        case FileExistsError() | NotADirectoryError():
            return f"{name}: it is a file, or lies below one, where a folder is needed ({reason})"
        case PermissionError():
            return f"{name}: {reason}: choose a place that you may use"
    return f"{name}: {reason}" if name else reason


def _is_of_jax(error: BaseException) -> bool:
    return "jax" in sys.modules and isinstance(error, sys.modules["jax"].errors.JaxRuntimeError)


def _of_jax(error: BaseException, less_memory: str) -> tuple[str, int] | None:
    line = _line(error)
    if "RESOURCE_EXHAUSTED" in line or "Out of memory" in line:
        return f"error: out of memory ({line}): {less_memory}", 1
    if cluster.has_others():  # JAX has no error of its own for a peer that is gone
        return (
            "error: this process of several has failed, most likely because another one is gone "
            f"({line}); the same command, given on all machines, goes on from the newest "
            "checkpoint (VPROMPT_TRACEBACK=1 shows where it failed)",
            1,
        )
    return None
