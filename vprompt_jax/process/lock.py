"""A lock on a folder, which the death of its process releases."""

import contextlib
import errno
import json
import os
import secrets
import socket
import sys
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # no Unix
    fcntl = None  # type: ignore[assignment]

from vprompt_jax.process.errors import InUse

NAME = ".lock"
_HELD = (errno.EWOULDBLOCK, errno.EACCES)


class FolderLock:
    """Holds a folder for this process, by `flock` on the file `.lock` in it.

    The kernel releases it when the process ends, however that happens; the file alone means
    nothing. It says who holds the lock, and a token by which another machine can see whether it
    looks at the same folder.

    Attributes:
      token: random hex digits, new for every lock.
    """

    def __init__(self, folder: Path):
        """Takes the lock.

        Args:
          folder: exists.

        Raises:
          InUse: if another process, or this one, holds it already; the folder stays as it is.
          OSError: if the file cannot be written.
        """
        self.token = secrets.token_hex(8)
        self._path = folder / NAME
        self._file = self._taken(folder)
        holder = {"process": os.getpid(), "host": socket.gethostname(), "token": self.token}
        os.ftruncate(self._file, 0)
        os.write(self._file, json.dumps(holder).encode())

    def _taken(self, folder: Path) -> int:
        """The open file, locked."""
        while True:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                self._lock(file, folder)
                # The holder before may have deleted the file after it was opened here. A lock on a
                # deleted file keeps no one out.
                if _is_same(file, self._path):
                    return file
            except BaseException:
                os.close(file)
                raise
            os.close(file)

    def _lock(self, file: int, folder: Path) -> None:
        try:
            if fcntl is None:
                raise OSError(errno.ENOTSUP, "this system has no flock")
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _HELD:
                print(
                    f"{folder} is on a file system without locks ({error.strerror}): make sure "
                    "that no other command uses it now",
                    file=sys.stderr,
                )
                return
            holder = read(folder)
            who = (
                f"process {holder['process']} on {holder['host']}" if holder else "another process"
            )
            raise InUse(
                f"{folder} is in use by {who}: wait until it has ended, or choose another --workdir"
            ) from None

    def release(self) -> None:
        """Gives the folder back, without the file."""
        with contextlib.suppress(OSError):  # a folder that is gone needs no unlocking
            self._path.unlink()
        os.close(self._file)


def is_held(folder: Path) -> bool:
    """Whether a process holds a folder, as far as its file system tells."""
    if not (folder / NAME).is_file():
        return False
    try:
        FolderLock(folder).release()
    except InUse:
        return True
    return False


def read(folder: Path) -> dict[str, Any] | None:
    """What the file says: "process", "host" and "token"; None where it says nothing."""
    try:
        holder = json.loads((folder / NAME).read_text())
        return {key: holder[key] for key in ("process", "host", "token")}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_same(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False
