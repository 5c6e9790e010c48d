"""What torch's pickles say: views of storages, and containers of them."""

import io
from collections.abc import Callable, ItemsView
from typing import Any

import ml_dtypes
import numpy as np

from vprompt_jax.clip.checkpoints import opcodes
from vprompt_jax.process.errors import UserError

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
_MOST_DIMENSIONS = 32


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**48


class _StorageType:
    """A storage class of torch's: the type of the numbers in it."""

    def __init__(self, dtype: np.dtype):
        self.dtype = dtype


class _Function:
    """A class or function that a file may call: what is done instead, given the arguments."""

    def __init__(self, substitute: Callable[..., Any]):
        self.substitute = substitute


class Module:
    """Stands for any TorchScript module: keeps its attributes, runs nothing."""

    def __init__(self) -> None:
        self.attributes: dict[Any, Any] | None = None


class _NoWeights:
    """Stands for a value in which no weights are; its state is dropped."""


class _OrderedDict(dict[Any, Any]):
    """Stands for OrderedDict, without the attributes that torch hangs on it (`_metadata`)."""


class Storage:
    """A named run of numbers in the file, shared by the tensors that are views of it."""

    def __init__(self, dtype: np.dtype, count: int, load: Callable[[], bytes]):
        self.dtype, self.count, self._load = dtype, count, load
        self.tensors = 0

    def read(self) -> np.ndarray:
        """All of its numbers [count]."""
        data = self._load()
        if len(data) < self.count * self.dtype.itemsize:
            raise ValueError(f"a storage holds {len(data)} bytes, not {self.count} numbers")
        return np.frombuffer(data, self.dtype, self.count)


class StoredTensor:
    """torch's strided view of a storage, refused where it would leave the storage."""

    def __init__(self, storage: Any, offset: Any, size: Any, stride: Any):
        if not isinstance(storage, Storage):
            raise ValueError("a tensor without a storage")
        if not isinstance(size, tuple) or not isinstance(stride, tuple):
            raise ValueError("a tensor without a size or strides")
        if len(size) != len(stride) or len(size) > _MOST_DIMENSIONS:
            raise ValueError(f"a tensor of {len(size)} dimensions with {len(stride)} strides")
        if not all(_is_count(number) for number in (offset, *size, *stride)):
            raise ValueError("a tensor whose size, strides or offset are no counts")
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride
        self._check(storage.count)
        storage.tensors += 1

    def _check(self, count: int) -> None:
        last = self.offset + sum((n - 1) * s for n, s in zip(self.size, self.stride, strict=True))
        if 0 not in self.size and last >= count:
            raise ValueError(f"tensor of size {self.size} reaches beyond its storage")

    def view(self, values: np.ndarray) -> np.ndarray:
        """The tensor as a view of its storage's numbers."""
        if 0 in self.size:
            return np.zeros(self.size, self.storage.dtype)
        self._check(len(values))  # NumPy checks no bounds here
        strides = [s * values.dtype.itemsize for s in self.stride]
        return np.lib.stride_tricks.as_strided(
            values[self.offset :], self.size, strides, writeable=False
        )


class TensorReader(opcodes.Reader):
    """Builds tensors and containers; refuses everything else by name."""

    def __init__(
        self,
        pickle_file: io.BufferedIOBase,
        size: int,
        storage: Callable[[str, np.dtype, int], Storage],
    ):
        super().__init__(pickle_file, size)
        self._storage = storage

    def named(self, module: str, name: str) -> Any:
        if module == "torch" and name in _STORAGE_DTYPES:
            return _StorageType(_STORAGE_DTYPES[name])
        if module.split(".")[0] == "__torch__":
            return _Function(Module)
        if (module, name) in _FUNCTIONS:
            return _Function(_FUNCTIONS[module, name])
        raise UserError(
            f"it asks for {module}.{name}, which weights do not need, and which is not run: save "
            "the weights alone, torch.save(model.state_dict(), ...), or as .safetensors"
        )

    def called(self, function: Any, arguments: tuple[Any, ...]) -> Any:
        if not isinstance(function, _Function):
            raise ValueError("the pickle calls what is no function")
        return function.substitute(*arguments)

    def set_state(self, value: Any, state: Any) -> None:
        if isinstance(value, Module) and value.attributes is None:
            # A module with a __setstate__ of its own may have any state; tensors are in none.
            value.attributes = state if isinstance(state, dict) else {}
        elif not isinstance(value, _OrderedDict | _NoWeights):
            raise ValueError("the pickle sets the state of what has none")

    def persistent(self, identifier: Any) -> Storage:
        if not isinstance(identifier, tuple) or len(identifier) not in (5, 6):
            raise ValueError("the pickle refers to what is no storage")
        kind, storage_type, key, _device, count, *view = identifier
        if kind != "storage" or not isinstance(storage_type, _StorageType):
            raise ValueError("the pickle refers to a storage of an unknown type")
        if not isinstance(key, str) or not _is_count(count):
            raise ValueError("the pickle refers to a storage without a name or size")
        if any(part is not None for part in view):
            raise ValueError(f"storage {key} is a view of another one")
        return self._storage(key, storage_type.dtype, count)


def _tensor(
    storage: Any, offset: Any, size: Any, stride: Any, _gradient: Any, _hooks: Any,
    metadata: Any = None,
) -> StoredTensor:  # fmt: skip
    if metadata:  # bits that say that numbers are stored negated or conjugated
        raise ValueError("a tensor whose numbers are stored negated or conjugated")
    return StoredTensor(storage, offset, size, stride)


def _ordered(pairs: Any = ()) -> _OrderedDict:
    # Python 2 wrote the pairs as an argument, Python 3 fills the dictionary afterwards.
    result = _OrderedDict({opcodes.checked_key(key): value for key, value in pairs})
    if pairs:
        # Used up, else few bytes could make many copies of a long list. A tuple has no `clear`.
        pairs.clear()
    return result


# Plain values of training checkpoints, and what their names became in Python 3 and NumPy 2: no
# weights are in them, so they are passed over.
_NO_WEIGHTS = {
    "__builtin__": ("set", "frozenset", "bytearray", "complex"),
    "builtins": ("set", "frozenset", "bytearray", "complex"),
    "_codecs": ("encode",),
    "argparse": ("Namespace",),
    "pathlib": ("Path", "PosixPath"),
    "numpy": ("dtype",),
    "numpy.core.multiarray": ("scalar",),
    "numpy._core.multiarray": ("scalar",),
    "torch": ("Size", "device", "float64", "float32", "float16", "bfloat16", "int64"),
}
_FUNCTIONS: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): lambda data, _gradient, _hooks: data,
    ("collections", "OrderedDict"): _ordered,
    # TorchScript writes containers with their types; the containers are what counts.
    ("torch.jit._pickle", "restore_type_tag"): lambda value, _type: value,
    **{
        ("torch.jit._pickle", f"build_{kind}list"): lambda values: values
        for kind in ("int", "double", "bool", "tensor")
    },
    **{
        (module, name): lambda *_: _NoWeights()
        for module, names in _NO_WEIGHTS.items()
        for name in names
    },
}


class Storages:
    """The storages of one file by their names, each one of one type and length."""

    def __init__(self, load: Callable[[str, int], bytes]):
        """`load`: a storage's name and size in bytes -> its bytes."""
        self._load = load
        self._known: dict[str, Storage] = {}

    def __call__(self, key: str, dtype: np.dtype, count: int) -> Storage:
        if key not in self._known:
            size = count * dtype.itemsize
            self._known[key] = Storage(dtype, count, lambda: self._load(key, size))
        storage = self._known[key]
        if (storage.dtype, storage.count) != (dtype, count):
            raise ValueError(f"storage {key} has two types or lengths")
        return storage

    def items(self) -> ItemsView[str, Storage]:
        """Names and storages that were asked for."""
        return self._known.items()
