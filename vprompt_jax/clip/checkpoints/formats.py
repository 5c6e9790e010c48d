"""Reads weight files as named arrays, one at a time, without torch and without pickle's code."""

import contextlib
import dataclasses
import math
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from vprompt_jax.clip.checkpoints import archives, torch_files
from vprompt_jax.process import json_files
from vprompt_jax.process.errors import UserError
from vprompt_jax.process.files import most_unpacked


@dataclasses.dataclass(frozen=True)
class Tensor:
    """An array that stays in its file until it is read, so that a whole checkpoint is never held.

    Attributes:
      shape: as in the file.
      dtype: as in the file.
      read: reads the array, freshly each time.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]


Tensors = Mapping[str, Tensor]

# Of one tensor and one checkpoint. The largest public CLIP has 2,000 tensors; the numbers of all
# tensors together may take a multiple of the file, as views of one storage and compression allow.
_MOST_TENSORS = 20_000
_MOST_DIMENSIONS = 32
_LARGEST_DIMENSION = 2**40
_LONGEST_NAME = 500  # characters
_SHARD = re.compile(r"\w[\w .+=@()-]*")  # a plain file name
_SAFETENSORS_DTYPES = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16,
    "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8, "U8": np.uint8,
    "BOOL": np.bool_,
}  # fmt: skip


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by their names in the file; their data is read when asked for.

    Args:
      path: a `.safetensors` file; what `torch.save` or `torch.jit.save` wrote; an `.npz`; or the
        `.index.json` of a checkpoint in several such files.

    Raises:
      UserError: if a file is missing, damaged, of an unknown format, or a pickle that asks for
        more than tensors and containers.
    """
    if not path.is_file():
        raise UserError(f"no weights at {path}: give the path of a checkpoint file")
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty; if it was downloaded, fetch it again")
    if path.name.endswith(".index.json"):
        return _read_shards(path)
    with _damage_named(path):
        return _checked(path, _found(path))


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All tensors of a file at once; arguments and errors of `read_tensors`."""
    return {name: tensor.read() for name, tensor in read_tensors(path).items()}


def _found(path: Path) -> dict[str, torch_files.Found]:
    if torch_files.is_legacy(path):
        return torch_files.read_legacy(path)
    if not zipfile.is_zipfile(path):
        return _read_safetensors(path)
    archive = archives.Archive(path)
    if any(name.endswith(".npy") for name in archive.names):
        return _read_npz(archive)
    return torch_files.read_archive(archive)


def _checked(path: Path, found: dict[str, torch_files.Found]) -> dict[str, Tensor]:
    """The tensors, once their number, names and sizes are those that a checkpoint can have."""
    if not found:
        raise ValueError("it holds no tensors")
    if len(found) > _MOST_TENSORS:
        raise ValueError(f"it holds {len(found):,} tensors, more than {_MOST_TENSORS:,}")
    total = 0
    for name, (shape, dtype, _) in found.items():
        if len(name) > _LONGEST_NAME:
            raise ValueError(f"the name {name[:40]}... has {len(name):,} characters")
        _check_shape(name, shape)
        total += math.prod(shape) * dtype.itemsize
    most = most_unpacked(path.stat().st_size)
    if total > most:
        raise ValueError(
            f"its tensors stand for {total:,} bytes; those of a file of its size may for {most:,}"
        )
    return {name: _guarded(path, *found[name]) for name in found}


def _check_shape(name: str, shape: tuple[Any, ...]) -> None:
    if len(shape) > _MOST_DIMENSIONS:
        raise ValueError(f"{name[:80]} has {len(shape)} dimensions")
    if not all(type(n) is int and 0 <= n < _LARGEST_DIMENSION for n in shape):
        raise ValueError(f"{name[:80]} has no possible shape")


@contextlib.contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """Turns what a damaged file raises into one message."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except Exception as error:  # of Python's, NumPy's and zlib's, according to what is damaged
        raise UserError(
            f"{path} is not a readable checkpoint ({error or repr(error)}): expected .safetensors, "
            ".npz, or a file of torch.save or torch.jit.save; if it was downloaded, fetch it again"
        ) from error


def _guarded(
    path: Path, shape: tuple[int, ...], dtype: np.dtype, read: Callable[[], np.ndarray]
) -> Tensor:
    def guarded_read() -> np.ndarray:
        with _damage_named(path):
            return read()

    return Tensor(tuple(shape), np.dtype(dtype), guarded_read)


def _read_safetensors(path: Path) -> dict[str, torch_files.Found]:
    """Eight bytes, which say how long the header is; the header, JSON; the tensors, back to back.

    Read here rather than by the library, which parses the header anew for each tensor and keeps
    what it read of the file in this process's memory until the file is closed.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > size - 8:
            raise ValueError(f"a header of {length:,} bytes in a file of {size:,}")
        if length > json_files.MOST_BYTES:
            raise ValueError(f"a header of {length:,} bytes")
        header = json_files.parse_object(file.read(length))
    header.pop("__metadata__", None)
    tensors: dict[str, torch_files.Found] = {}
    places = []
    for name, about in header.items():
        kind = about["dtype"]
        if kind not in _SAFETENSORS_DTYPES:
            raise ValueError(f"{name[:80]} is stored as {str(kind)[:20]}, which is not supported")
        shape, dtype = tuple(about["shape"]), np.dtype(_SAFETENSORS_DTYPES[kind])
        begin, end = about["data_offsets"]
        _check_shape(name, shape)
        if not all(type(n) is int and 0 <= n <= size for n in (begin, end)):
            raise ValueError(f"{name[:80]} does not lie in the file")
        if end - begin != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{name[:80]} has {end - begin:,} bytes, which its shape does not")
        places.append((begin, end))
        tensors[name] = shape, dtype, _file_reader(path, 8 + length + begin, shape, dtype)
    places.sort()
    ends = [0, *(end for _, end in places)]
    if [begin for begin, _ in places] != ends[:-1] or 8 + length + ends[-1] != size:
        raise ValueError("its tensors overlap, leave gaps, or do not end where the file ends")
    return tensors


def _file_reader(
    path: Path, start: int, shape: tuple[int, ...], dtype: np.dtype
) -> Callable[[], np.ndarray]:
    def read() -> np.ndarray:
        count = math.prod(shape) * dtype.itemsize
        content = np.fromfile(path, np.uint8, count, offset=start)
        return content.view(dtype).reshape(shape)  # raises if the file has become shorter

    return read


def _read_npz(archive: archives.Archive) -> dict[str, torch_files.Found]:
    def reader(member: str) -> Callable[[], np.ndarray]:
        def read() -> np.ndarray:
            with archive.open(member) as file:
                return np.lib.format.read_array(file, allow_pickle=False)

        return read

    tensors = {}
    for member in archive.names:
        with archive.open(member) as file:
            version = np.lib.format.read_magic(file)
            header = np.lib.format.read_array_header_1_0
            if version != (1, 0):
                header = np.lib.format.read_array_header_2_0
            shape, _, dtype = header(file)
            start = file.tell()
        if dtype.hasobject:
            raise ValueError(f"{member} holds Python objects")
        if dtype.kind not in "biuf":
            raise ValueError(f"{member} holds {str(dtype)[:40]}, not numbers")
        _check_shape(member, shape)
        size = start + math.prod(shape) * dtype.itemsize
        if size != archive.size(member):
            raise ValueError(
                f"the header of {member} promises {size:,} bytes, it has {archive.size(member):,}"
            )
        tensors[member.removesuffix(".npy")] = shape, dtype, reader(member)
    return tensors


def shards(index: Path) -> list[str]:
    """File names of a checkpoint in several files, as Hugging Face's index lists them.

    Raises:
      UserError: if it is no such index.
    """
    return sorted(set(_places(index).values()))


def _places(index: Path) -> dict[str, str]:
    """The names of tensors -> the file that holds each."""
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(v, str) for v in places.values()):
        raise UserError(f"{index} is no index of a sharded checkpoint: it has no weight_map")
    for name in set(places.values()):
        if not _SHARD.fullmatch(name) or name.endswith(".index.json"):
            raise UserError(f"{index} names {name[:80]!r}, which is not a file beside it")
    return places


def _read_shards(index: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    places = _places(index)
    for name in sorted(set(places.values())):
        held = read_tensors(index.parent / name)
        if twice := sorted(tensors.keys() & held.keys()):
            raise UserError(f"{index}: two of its files hold the tensors {twice[:3]}")
        tensors |= held
        if len(tensors) > _MOST_TENSORS:
            raise UserError(f"{index}: its files hold more than {_MOST_TENSORS:,} tensors")
    if missing := sorted(set(places) - set(tensors)):
        raise UserError(f"{index} names tensors that its files do not hold: {missing[:3]}")
    return tensors


def write_safetensors(
    path: Path, tensors: Mapping[str, np.ndarray], metadata: dict[str, str]
) -> None:
    """Writes arrays to a `.safetensors` file."""
    from safetensors.numpy import save

    # The library's `save_file` would make a file that nobody but its owner can read.
    path.write_bytes(save({k: np.asarray(v, order="C") for k, v in tensors.items()}, metadata))


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
      UserError: if it is not one, or is very large or deep.
    """
    try:
        return json_files.read_object(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not a readable JSON object: {error}") from error
