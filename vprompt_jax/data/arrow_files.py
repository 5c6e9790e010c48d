"""Parquet and Arrow files that others wrote: read within bounds, their paths kept to one folder."""

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vprompt_jax.process import json_files

# What a file may unpack to, in multiples of its size, beyond a part that is free. Pictures are
# compressed already, and arrays of pixels hardly get smaller than an eighth.
_MOST_GROWTH = 8
_FREE = 2**26  # bytes
_LEAST_ROW = 2  # bytes of a row on disk: its label and its picture, both of few values
_SMALL = 2**28  # bytes
_LONGEST_NAME = 1000  # characters of a class


def read_parquet(path: Path) -> pa.Table:
    """A Parquet file's table; columns of bytes and text in small files are dictionary-encoded.

    Raises:
      ValueError: if it unpacks to far more than a file of its size can, or is damaged (also
        OSError and pyarrow's own errors).
    """
    size = _size(path)
    file = pq.ParquetFile(path)
    about = file.metadata
    groups = [about.row_group(i) for i in range(about.num_row_groups)]
    packed = sum(g.column(i).total_uncompressed_size for g in groups for i in range(g.num_columns))
    _check(path, size, packed)
    if about.num_rows > size // _LEAST_ROW:
        raise ValueError(f"{path} has {about.num_rows:,} rows in {size:,} bytes")
    if size < _SMALL:
        # Few bytes can say "the same value a million times". Read as dictionaries, they stay few.
        columns = [about.schema.column(i) for i in range(len(about.schema))]
        texts = [column.path for column in columns if column.physical_type == "BYTE_ARRAY"]
        file = pq.ParquetFile(path, read_dictionary=texts)
    table = file.read()
    table.validate(full=True)
    _check(path, size, sum(_unpacked(c) for column in table.columns for c in column.chunks))
    return table


def read_stream(path: Path) -> pa.Table:
    """The table of an Arrow stream, mapped into memory.

    Raises:
      ValueError: if it is damaged (also OSError and pyarrow's own errors).
    """
    _size(path)
    table = pa.ipc.open_stream(pa.memory_map(str(path))).read_all()
    table.validate(full=True)  # Arrow follows offsets in the file wherever they lead
    return table


def inside(folder: Path, name: str) -> Path:
    """The regular file that a path in a table stands for; it starts at the table's folder.

    Links in the folder may lead out of it: the Hub's cache consists of them, and whoever can make
    one can read the file. What a table says may not.

    Raises:
      ValueError: if the path leads out of the folder.
      FileNotFoundError: if no regular file is there; a device or a pipe would not end.
    """
    root = os.path.abspath(folder)
    path = os.path.abspath(os.path.join(root, name))
    if os.path.commonpath([root, path]) != root:
        raise ValueError(f"its path {name[:200]!r} leads out of {folder}")
    if not os.path.isfile(path):
        raise FileNotFoundError(f"there is no file {path}")
    return Path(path)


def picture(cell: Any, folder: Path) -> bytes | Path:
    """What a cell of a column of images holds: the stored bytes, or the file it names.

    Raises:
      ValueError: if it holds no image, or names one outside of the folder.
      FileNotFoundError: if it names a file that is not there.
    """
    if isinstance(cell, dict):
        cell = cell.get("bytes") or cell.get("path")
    if isinstance(cell, bytes) and cell:
        return cell
    if isinstance(cell, str) and cell:
        return inside(folder, cell)
    raise ValueError("the row has no image")


def features(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """What Hugging Face says of the columns, by name; {} where it says nothing.

    Raises:
      ValueError: if it is damaged, or names classes by what is no text, or very long.
    """
    stored = json_files.parse_object((schema.metadata or {}).get(b"huggingface") or b"{}")
    about = stored.get("info") or {}
    found = about.get("features") or {} if isinstance(about, dict) else None
    if not isinstance(found, dict):
        raise ValueError("its features are no JSON objects")
    found = {name: feature for name, feature in found.items() if isinstance(feature, dict)}
    for name, feature in found.items():
        names = feature.get("names") or []
        if not isinstance(names, list) or not all(
            isinstance(text, str) and len(text) <= _LONGEST_NAME for text in names
        ):
            raise ValueError(f"the classes of {name[:80]!r} are no texts")
    return found


def _size(path: Path) -> int:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    return path.stat().st_size


def _check(path: Path, size: int, unpacked: int) -> None:
    most = _MOST_GROWTH * size + _FREE
    if unpacked > most:
        raise ValueError(f"{path} unpacks to {unpacked:,} bytes; one of its size may to {most:,}")


def _unpacked(array: pa.Array) -> int:
    """Bytes of an array's values, each repeated one counted as often as it occurs."""
    if pa.types.is_struct(array.type):
        return sum(_unpacked(child) for child in array.flatten())
    if not pa.types.is_dictionary(array.type):
        return array.nbytes
    lengths = pc.binary_length(array.dictionary).cast(pa.int64())
    return int(pc.sum(lengths.take(array.indices)).as_py() or 0)
