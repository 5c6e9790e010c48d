"""Reads weight files as plain arrays, without torch and without running a pickle's code."""

import json
import pickle
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np

from vprompt_jax.errors import UserError

StateDict = dict[str, np.ndarray]

_STORAGE_DTYPES = {
    "FloatStorage": np.dtype(np.float32),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "DoubleStorage": np.dtype(np.float64),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}


def read_state_dict(path: Path) -> StateDict:
    """Reads a checkpoint file into arrays by their names in the file.

    Args:
      path: a `.safetensors` file, or a zip archive written by `torch.save` or `torch.jit.save`.

    Raises:
      UserError: if the file is missing, damaged, of an unknown format, or a pickle that asks for
        more than tensors and containers.
    """
    if not path.is_file():
        raise UserError(f"no weights at {path}: give the path of a checkpoint file")
    try:
        if zipfile.is_zipfile(path):
            return _read_torch_archive(path)
        return _read_safetensors(path)
    except (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, IndexError,
            pickle.UnpicklingError, zipfile.BadZipFile) as error:  # fmt: skip
        raise UserError(
            f"{path} is not a readable checkpoint ({error}): expected .safetensors or a zip "
            "archive of torch.save or torch.jit.save; if it was downloaded, fetch it again"
        ) from error


def write_safetensors(path: Path, tensors: StateDict, metadata: dict[str, str]) -> None:
    """Writes arrays to a `.safetensors` file."""
    from safetensors.numpy import save_file

    save_file({k: np.asarray(v, order="C") for k, v in tensors.items()}, path, metadata)


def _read_safetensors(path: Path) -> StateDict:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(str(error)) from error


class _Module:
    """Stands for any TorchScript module: keeps its attributes, runs nothing."""

    def __setstate__(self, state: dict):
        self.attributes = state


class _Storage(str):
    """The name of a torch storage class inside a pickle."""


class _TensorUnpickler(pickle.Unpickler):
    """Builds tensors and containers; refuses everything else by name."""

    def __init__(self, archive: zipfile.ZipFile, prefix: str, file):
        super().__init__(file)
        self._archive, self._prefix = archive, prefix

    def find_class(self, module: str, name: str):
        if module == "torch" and name in _STORAGE_DTYPES:
            return _Storage(name)
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda data, requires_grad, hooks: data
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        if module.split(".")[0] == "__torch__":
            return _Module
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which weights do not need")

    def persistent_load(self, pid):
        kind, storage, key, _, count = pid
        if kind != "storage" or not isinstance(storage, _Storage):
            raise pickle.UnpicklingError(f"unknown storage {pid!r}")
        data = self._archive.read(f"{self._prefix}data/{key}")
        array = np.frombuffer(data, _STORAGE_DTYPES[storage])
        if len(array) < count:
            raise ValueError(f"storage {key} holds {len(array)} of {count} numbers")
        return array


def _rebuild_tensor(storage: np.ndarray, offset: int, size: tuple, stride: tuple, *_):
    """torch's strided view of a storage, refused where it would leave the storage."""
    if len(size) != len(stride) or min((offset, *size, *stride), default=0) < 0:
        raise ValueError(f"tensor of size {size} with strides {stride}")
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if 0 in size:
        return np.zeros(size, storage.dtype)
    if last >= len(storage):
        raise ValueError(f"tensor of size {size} reaches beyond its storage")
    item = storage.dtype.itemsize
    return np.lib.stride_tricks.as_strided(
        storage[offset:], size, [s * item for s in stride], writeable=False
    )


def _read_torch_archive(path: Path) -> StateDict:
    with zipfile.ZipFile(path) as archive:
        pickles = [n for n in archive.namelist() if n.endswith("/data.pkl") or n == "data.pkl"]
        if len(pickles) != 1:
            raise ValueError("a zip archive without torch's data.pkl")
        prefix = pickles[0].removesuffix("data.pkl")
        byteorder = f"{prefix}byteorder"
        if byteorder in archive.namelist() and archive.read(byteorder) != b"little":
            raise ValueError("big-endian tensors")
        with archive.open(pickles[0]) as file:
            root = _TensorUnpickler(archive, prefix, file).load()
    tensors: StateDict = {}
    _collect_tensors("", root, tensors)
    return tensors


def _collect_tensors(name: str, value, tensors: StateDict) -> None:
    """Flattens modules and dictionaries to dotted names; leaves plain numbers out."""
    if isinstance(value, np.ndarray):
        tensors[name] = value
    children = getattr(value, "attributes", value)
    if isinstance(children, dict):
        for key, child in children.items():
            _collect_tensors(f"{name}.{key}" if name else str(key), child, tensors)


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
