"""Reads torch's files with an unpickler that can build tensors and containers, nothing else."""

import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

# A tensor inside a file: shape, dtype, and how to read it.
Found = tuple[tuple[int, ...], np.dtype, Callable[[], np.ndarray]]

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
# How torch.save began its files before it wrote zip archives (torch < 1.6): a pickled number.
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_START = pickle.dumps(_LEGACY_MAGIC, protocol=2)


class ForeignObject(pickle.UnpicklingError):
    """A pickle asks for a class or a function that weights do not need."""


class _Module:
    """Stands for any TorchScript module: keeps its attributes, runs nothing."""

    def __setstate__(self, state: dict):
        self.attributes = state


class _Dict(dict):
    """Stands for OrderedDict, without the attributes torch hangs on it (`_metadata`)."""

    def __setstate__(self, state):
        del state


class _StorageType(str):
    """The name of a torch storage class inside a pickle."""


class _Storage:
    """A named run of numbers in the file; `load` reads it."""

    def __init__(self, dtype: np.dtype, count: int, load: Callable[[], bytes]):
        self.dtype, self.count, self._load = dtype, count, load

    def read(self) -> np.ndarray:
        array = np.frombuffer(self._load(), self.dtype)
        if len(array) < self.count:
            raise ValueError(f"a storage holds {len(array)} of {self.count} numbers")
        return array


class _StoredTensor:
    """torch's strided view of a storage, refused where it would leave the storage."""

    def __init__(self, storage: _Storage, offset: int, size: tuple, stride: tuple):
        if not isinstance(storage, _Storage):
            raise pickle.UnpicklingError("a tensor without a storage")
        if len(size) != len(stride) or min((offset, *size, *stride), default=0) < 0:
            raise ValueError(f"tensor of size {size} with strides {stride}")
        last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
        if 0 not in size and last >= storage.count:
            raise ValueError(f"tensor of size {size} reaches beyond its storage")
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride

    def read(self) -> np.ndarray:
        if 0 in self.size:
            return np.zeros(self.size, self.storage.dtype)
        values = self.storage.read()[self.offset :]
        item = values.dtype.itemsize
        strides = [s * item for s in self.stride]
        view = np.lib.stride_tricks.as_strided(values, self.size, strides, writeable=False)
        # A small view must not keep a large shared storage alive.
        return view if 2 * view.size >= values.size else view.copy()


class _TensorUnpickler(pickle.Unpickler):
    """Builds tensors and containers; refuses everything else by name."""

    def __init__(self, file, storage: Callable[..., _Storage]):
        super().__init__(file)
        self._storage = storage

    def find_class(self, module: str, name: str):
        if module == "torch" and name in _STORAGE_DTYPES:
            return _StorageType(name)
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, size, stride, *_: _StoredTensor(
                storage, offset, size, stride
            )
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda data, requires_grad, hooks: data
        if (module, name) == ("collections", "OrderedDict"):
            return _Dict
        if module.split(".")[0] == "__torch__":
            return _Module
        raise ForeignObject(f"it asks for {module}.{name}, which weights do not need")

    def persistent_load(self, pid):
        kind, storage_type, key, _, count, *_ = pid
        if kind != "storage" or not isinstance(storage_type, _StorageType):
            raise pickle.UnpicklingError(f"unknown storage {pid!r}")
        return self._storage(str(key), _STORAGE_DTYPES[storage_type], int(count))


def read_archive(path: Path) -> dict[str, Found]:
    """Tensors of a zip archive of `torch.save` or `torch.jit.save`, by dotted name."""

    def reader(member):
        def load():
            with zipfile.ZipFile(path) as archive:
                return archive.read(member)  # checks the CRC

        return load

    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        roots = [n for n in names if n.endswith("/data.pkl") or n == "data.pkl"]
        if len(roots) != 1:
            raise ValueError("a zip archive without torch's data.pkl")
        prefix = roots[0].removesuffix("data.pkl")
        byteorder = f"{prefix}byteorder"
        if byteorder in names and archive.read(byteorder) != b"little":
            raise ValueError("big-endian tensors")

        def storage(key, dtype, count):
            member = f"{prefix}data/{key}"
            if archive.getinfo(member).file_size < count * dtype.itemsize:
                raise ValueError(f"{member} is shorter than its {count} numbers")
            return _Storage(dtype, count, reader(member))

        with archive.open(roots[0]) as file:
            root = _TensorUnpickler(file, storage).load()
    return _named_tensors(root)


def is_legacy(path: Path) -> bool:
    """Whether the file begins as those of torch before 1.6 do."""
    with path.open("rb") as file:
        return file.read(len(_LEGACY_START)) == _LEGACY_START


def read_legacy(path: Path) -> dict[str, Found]:
    """Tensors of a file that torch before 1.6 saved: pickles, then the storages one by one."""
    wanted: dict[str, tuple[np.dtype, int]] = {}
    places: dict[str, int] = {}

    def storage(key, dtype, count):
        wanted[key] = dtype, count

        def load():
            with path.open("rb") as file:
                file.seek(places[key])
                return file.read(count * dtype.itemsize)

        return _Storage(dtype, count, load)

    size = path.stat().st_size
    with path.open("rb") as file:

        def next_pickle() -> Any:
            return _TensorUnpickler(file, storage).load()

        _magic, protocol, system = next_pickle(), next_pickle(), next_pickle()
        if protocol != 1001 or not system.get("little_endian", False):
            raise ValueError("a torch file of an unknown protocol or byte order")
        root = next_pickle()
        for key in next_pickle():
            dtype, count = wanted[key]
            if struct.unpack("<q", file.read(8)) != (count,):
                raise ValueError(f"storage {key} does not hold {count} numbers")
            places[key] = file.tell()
            if file.seek(count * dtype.itemsize, io.SEEK_CUR) > size:
                raise ValueError(f"the file ends within storage {key}")
    if missing := set(wanted) - set(places):
        raise ValueError(f"storages {sorted(missing)[:3]} are missing")
    return _named_tensors(root)


def _named_tensors(root) -> dict[str, Found]:
    """Flattens modules and dictionaries to dotted names; leaves plain numbers out.

    Of a training checkpoint only its "state_dict" or "model" counts, which then begins every name.
    """
    for key in ("state_dict", "model"):
        if isinstance(root, dict) and isinstance(root.get(key), dict):
            root = {key: root[key]}
    found: dict[str, Found] = {}

    def collect(name, value):
        if isinstance(value, _StoredTensor):
            found[name] = tuple(value.size), value.storage.dtype, value.read
        children = getattr(value, "attributes", value)
        if isinstance(children, dict):
            for key, child in children.items():
                collect(f"{name}.{key}" if name else str(key), child)

    collect("", root)
    return found
