"""What tests of hostile files share: how they are refused, and pickles put together by hand."""

import contextlib
import resource
import struct
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from vprompt_jax.process.errors import UserError

_SECONDS = 10  # far more than any takes, even on a busy machine
_MEGABYTES = 400


@contextlib.contextmanager
def refused(match: str):
    """Expects a UserError, soon and without much memory."""
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=match) as error:
        yield
    assert not isinstance(error.value.__cause__, MemoryError | RecursionError)
    assert len(str(error.value)) < 3000
    assert time.monotonic() - start < _SECONDS
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 1024 * _MEGABYTES


# Pickles, opcode by opcode.


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def integer(value: int) -> bytes:
    return b"\x8a\x08" + value.to_bytes(8, "little", signed=True)


def tuple_of(*values: bytes) -> bytes:
    return b"(" + b"".join(values) + b"t"


def storage(count: bytes = integer(4), key: bytes = text("0"), rest: bytes = b"") -> bytes:
    return (
        b"("
        + text("storage")
        + b"ctorch\nFloatStorage\n"
        + key
        + text("cpu")
        + count
        + rest
        + b"tQ"
    )


ORDERED = b"ccollections\nOrderedDict\n)R"
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"
FOUR = tuple_of(integer(4))
ONE = tuple_of(integer(1))


def tensor(
    of: bytes | None = None, offset: bytes = integer(0), size: bytes = FOUR, stride: bytes = ONE
) -> bytes:
    parts = [of or storage(), offset, size, stride, b"\x89", ORDERED]
    return REBUILD + tuple_of(*parts) + b"R"


def dictionary(*items: bytes) -> bytes:
    return b"}(" + b"".join(items) + b"u"


WEIGHT = text("w")


def archive_of(path: Path, content: bytes, numbers: int = 4) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02" + content + b".")
        archive.writestr("a/data/0", np.arange(numbers, dtype=np.float32).tobytes())
    return path
