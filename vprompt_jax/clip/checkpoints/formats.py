"""Reads weight files as named arrays, one at a time, without torch and without pickle's code."""

import contextlib
import dataclasses
import json
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from vprompt_jax.clip.checkpoints import pickles
from vprompt_jax.process.errors import UserError


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

# What damaged files raise, in this module and in the libraries below it.
_DAMAGE = (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, IndexError,
           pickle.UnpicklingError, zipfile.BadZipFile)  # fmt: skip
_SAFETENSORS_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64",
    "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
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
        if pickles.is_legacy(path):
            found = pickles.read_legacy(path)
        elif not zipfile.is_zipfile(path):
            return _read_safetensors(path)
        elif any(name.endswith(".npy") for name in zipfile.ZipFile(path).namelist()):
            return _read_npz(path)
        else:
            found = pickles.read_archive(path)
        return {name: _guarded(path, *found[name]) for name in found}


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All tensors of a file at once; arguments and errors of `read_tensors`."""
    return {name: tensor.read() for name, tensor in read_tensors(path).items()}


@contextlib.contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """Turns what a damaged file raises into one message."""
    try:
        yield
    except pickles.ForeignObject as error:
        raise UserError(
            f"{path} holds more than weights ({error}): write the weights alone, by "
            "torch.save(model.state_dict(), ...), where those classes are installed"
        ) from error
    except _DAMAGE as error:
        raise UserError(
            f"{path} is not a readable checkpoint ({error}): expected .safetensors, .npz, or a "
            "file of torch.save or torch.jit.save; if it was downloaded, fetch it again"
        ) from error


def _guarded(path: Path, shape, dtype, read: Callable[[], np.ndarray]) -> Tensor:
    def guarded_read():
        with _damage_named(path):
            return read()

    return Tensor(tuple(shape), np.dtype(dtype), guarded_read)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    import ml_dtypes  # noqa: F401 - lets NumPy understand "bfloat16"
    from safetensors import SafetensorError, safe_open

    def reader(name):
        def read():
            # Opened for each tensor: the library maps the file, and what was read of a mapping
            # counts as this process's memory until it is closed.
            with safe_open(path, framework="np") as file:
                return file.get_tensor(name)

        return read

    try:
        tensors = {}
        with safe_open(path, framework="np") as file:
            for name in file.keys():  # noqa: SIM118 - not a mapping
                piece = file.get_slice(name)
                kind = piece.get_dtype()
                if kind not in _SAFETENSORS_DTYPES:
                    raise ValueError(f"{name} is stored as {kind}, which is not supported")
                dtype = np.dtype(_SAFETENSORS_DTYPES[kind])
                tensors[name] = _guarded(path, piece.get_shape(), dtype, reader(name))
        return tensors
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def _read_npz(path: Path) -> dict[str, Tensor]:
    def reader(member):
        def read():
            with zipfile.ZipFile(path) as archive, archive.open(member) as file:
                return np.lib.format.read_array(file, allow_pickle=False)

        return read

    tensors = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            with archive.open(member) as file:
                version = np.lib.format.read_magic(file)
                header = np.lib.format.read_array_header_1_0
                if version != (1, 0):
                    header = np.lib.format.read_array_header_2_0
                shape, _, dtype = header(file)
            if dtype.hasobject:
                raise ValueError(f"{member} holds Python objects")
            tensors[member.removesuffix(".npy")] = _guarded(path, shape, dtype, reader(member))
    return tensors


def shards(index: Path) -> list[str]:
    """File names of a checkpoint in several files, as Hugging Face's index lists them.

    Raises:
      UserError: if it is no such index.
    """
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(v, str) for v in places.values()):
        raise UserError(f"{index} is no index of a sharded checkpoint: it has no weight_map")
    names = sorted(set(places.values()))
    for name in names:
        if Path(name).name != name or name.endswith(".index.json"):
            raise UserError(f"{index} names {name!r}, which is not a file beside it")
    return names


def _read_shards(index: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name in shards(index):
        tensors |= read_tensors(index.parent / name)
    if missing := sorted(set(read_json(index)["weight_map"]) - set(tensors)):
        raise UserError(f"{index} names tensors that its files do not hold: {missing[:3]}")
    return tensors


def write_safetensors(
    path: Path, tensors: Mapping[str, np.ndarray], metadata: dict[str, str]
) -> None:
    """Writes arrays to a `.safetensors` file."""
    from safetensors.numpy import save

    # The library's `save_file` would make a file that nobody but its owner can read.
    path.write_bytes(save({k: np.asarray(v, order="C") for k, v in tensors.items()}, metadata))


def read_json(path: Path) -> dict:
    """Reads a JSON object.

    Raises:
      UserError: if it is not one.
    """
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not readable JSON: {error}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} holds no JSON object")
    return value
