"""Reads torch's files: the tensors in them, and nothing else."""

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vprompt_jax.clip.checkpoints import archives, opcodes, pickles

# A tensor inside a file: shape, dtype, and how to read it.
Found = tuple[tuple[int, ...], np.dtype, Callable[[], np.ndarray]]

# How torch.save began its files before it wrote zip archives (torch < 1.6): a pickled number.
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_START = b"\x8a\x0a" + _LEGACY_MAGIC.to_bytes(10, "little")  # the opcode LONG1, ten bytes
_MOST_PICKLE = 2**25  # bytes of an archive's pickle, which holds no tensor; real ones have 0.1-2 MB
# Of the containers that hold tensors. Real ones are 5 deep in torch.save's, 10 in TorchScript's.
_MOST_DEPTH = 64
_MOST_VALUES = 200_000
_LONGEST_NAME = 500  # characters


def read_archive(archive: archives.Archive) -> dict[str, Found]:
    """Tensors of an archive of `torch.save` or `torch.jit.save`, by dotted name."""
    roots = [n for n in archive.names if n.endswith("/data.pkl") or n == "data.pkl"]
    if len(roots) != 1:
        raise ValueError("a zip archive without torch's data.pkl")
    prefix = roots[0].removesuffix("data.pkl")
    byteorder = f"{prefix}byteorder"
    if byteorder in archive.names and archive.read(byteorder, most=16) != b"little":
        raise ValueError("big-endian tensors")
    storages = pickles.Storages(lambda key, size: archive.read(f"{prefix}data/{key}"))
    content = archive.read(roots[0], most=_MOST_PICKLE)
    root = pickles.TensorReader(io.BytesIO(content), len(content), storages).read()
    for key, storage in storages.items():
        if archive.size(f"{prefix}data/{key}") < storage.count * storage.dtype.itemsize:
            raise ValueError(f"{prefix}data/{key} is shorter than its {storage.count} numbers")
    return _named_tensors(root)


def is_legacy(path: Path) -> bool:
    """Whether the file begins as those of torch before 1.6 do."""
    with path.open("rb") as file:
        start = file.read(32)
    return start[:1] == b"\x80" and _LEGACY_START in start


def read_legacy(path: Path) -> dict[str, Found]:
    """Tensors of a file that torch before 1.6 saved: pickles, then the storages one by one."""
    places: dict[str, int] = {}

    def load(key: str, size: int) -> bytes:
        with path.open("rb") as file:
            file.seek(places[key])
            return file.read(size)

    storages = pickles.Storages(load)
    size = path.stat().st_size
    with path.open("rb") as file:

        def next_pickle(most: int) -> Any:
            return pickles.TensorReader(file, size - file.tell(), storages).read(most)

        _magic, protocol, system = (next_pickle(100) for _ in range(3))
        little = isinstance(system, dict) and system.get("little_endian") is True
        if protocol != 1001 or not little:
            raise ValueError("a torch file of an unknown protocol or byte order")
        root, keys = next_pickle(opcodes.MOST_OPCODES), next_pickle(_MOST_VALUES)
        known = dict(storages.items())
        if not isinstance(keys, list) or not all(isinstance(k, str) and k in known for k in keys):
            raise ValueError("a torch file whose list of storages is damaged")
        for key in keys:
            if file.read(8) != struct.pack("<q", known[key].count):
                raise ValueError(f"storage {key} does not hold {known[key].count} numbers")
            places[key] = file.tell()
            if file.seek(known[key].count * known[key].dtype.itemsize, io.SEEK_CUR) > size:
                raise ValueError(f"the file ends within storage {key}")
    if missing := sorted(set(known) - set(places)):
        raise ValueError(f"storages {missing[:3]} are missing")
    return _named_tensors(root)


def _named_tensors(root: Any) -> dict[str, Found]:
    """Flattens modules and dictionaries to dotted names; leaves plain numbers out.

    Of a training checkpoint only its "state_dict" or "model" counts, which then begins every name.
    """
    for key in ("state_dict", "model"):
        if isinstance(root, dict) and isinstance(root.get(key), dict):
            root = {key: root[key]}
            break
    tensors: dict[str, pickles.StoredTensor] = {}
    left = [("", root, 0)]
    for _ in range(_MOST_VALUES):
        if not left:
            break
        name, value, depth = left.pop()
        if isinstance(value, pickles.StoredTensor):
            tensors[name] = value
        children = value.attributes if isinstance(value, pickles.Module) else value
        if isinstance(children, dict) and children:
            if depth == _MOST_DEPTH:
                raise ValueError(f"dictionaries lie more than {_MOST_DEPTH} deep in each other")
            inner = [
                (key, child)
                for key, child in reversed(children.items())
                if isinstance(child, pickles.StoredTensor | pickles.Module | dict)
            ]
            if len(left) + len(inner) > _MOST_VALUES:
                break
            if any(len(name) + len(str(key)) > _LONGEST_NAME for key, _ in inner):
                raise ValueError(f"a tensor's name has more than {_LONGEST_NAME} characters")
            left += [(f"{name}.{key}" if name else str(key), c, depth + 1) for key, c in inner]
    if left:
        raise ValueError(f"it holds more than {_MOST_VALUES:,} tensors and dictionaries")
    recent: dict[pickles.Storage, np.ndarray] = {}  # at most one

    def reader(tensor: pickles.StoredTensor) -> Callable[[], np.ndarray]:
        def read() -> np.ndarray:
            values = recent.get(tensor.storage)
            if values is None:
                recent.clear()
                values = tensor.storage.read()
                if tensor.storage.tensors > 1:
                    # Views of one storage are mostly read one after the other: it is read once.
                    recent[tensor.storage] = values
            view = tensor.view(values)
            # A small view must not keep a large shared storage alive.
            return view if 2 * view.size >= values.size else view.copy()

        return read

    return {name: (t.size, t.storage.dtype, reader(t)) for name, t in tensors.items()}
