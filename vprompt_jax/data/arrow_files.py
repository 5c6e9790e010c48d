"""Reads Parquet and Arrow files that others wrote, within bounds of size and of one folder."""

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vprompt_jax.process import json_files
from vprompt_jax.process.files import most_unpacked

_LEAST_ROW = 2  # bytes of a row on disk, if its label and its picture both have few values
_SMALL = 2**28  # bytes; smaller files are read with dictionaries
_LONGEST_NAME = 1000  # characters of a class name


def read_parquet(path: Path) -> pa.Table:
    """Reads a Parquet file; columns of bytes and text in small files are dictionary-encoded.

    Raises:
      ValueError: if the file unpacks to far more than a file of its size should, or is damaged
        (also OSError and pyarrow's own errors).
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
        # A few bytes can say "the same value a million times". A dictionary keeps the column small.
        columns = [about.schema.column(i) for i in range(len(about.schema))]
        texts = [column.path for column in columns if column.physical_type == "BYTE_ARRAY"]
        file = pq.ParquetFile(path, read_dictionary=texts)
    table = file.read()
    table.validate(full=True)
    _check(path, size, sum(_unpacked(c) for column in table.columns for c in column.chunks))
    return table


def read_stream(path: Path) -> pa.Table:
    """Maps the table of an Arrow stream into memory.

    Raises:
      ValueError: if the file is damaged (also OSError and pyarrow's own errors).
    """
    _size(path)
    table = pa.ipc.open_stream(pa.memory_map(str(path))).read_all()
    table.validate(full=True)  # else Arrow follows the file's offsets wherever they lead
    return table


def inside(folder: Path, name: str) -> Path:
    """Resolves a path that a table states, relative to the table's folder, to a regular file.

    The path itself may not lead out of the folder. Links inside the folder may: the Hub's cache
    consists of them, and whoever can make a link can read its target anyway.

    Raises:
      ValueError: if the path leads out of the folder.
      FileNotFoundError: if there is no regular file; reading a device or a pipe might never end.
    """
    root = os.path.abspath(folder)
    path = os.path.abspath(os.path.join(root, name))
    if os.path.commonpath([root, path]) != root:
        raise ValueError(f"its path {name[:200]!r} leads out of {folder}")
    if not os.path.isfile(path):
        raise FileNotFoundError(f"there is no file {path}")
    return Path(path)


def picture(cell: Any, folder: Path) -> bytes | Path:
    """Reads a cell of an image column: the stored bytes, or the path of the file it names.

    Raises:
      ValueError: if the cell holds no image, or names one outside the folder.
      FileNotFoundError: if the cell names a missing file.
    """
    if isinstance(cell, dict):
        cell = cell.get("bytes") or cell.get("path")
    if isinstance(cell, bytes) and cell:
        return cell
    if isinstance(cell, str) and cell:
        return inside(folder, cell)
    raise ValueError("the row has no image")


def features(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """Hugging Face's description of each column, by name; {} if the schema holds none.

    Raises:
      ValueError: if the description is damaged, or a class name is no text or very long.
    """
    stored = json_files.parse_object((schema.metadata or {}).get(b"huggingface") or b"{}")
    about = stored.get("info") or {}
    columns = about.get("features") or {} if isinstance(about, dict) else None
    if not isinstance(columns, dict):
        raise ValueError("its features are no JSON objects")
    columns = {name: feature for name, feature in columns.items() if isinstance(feature, dict)}
    for name, feature in columns.items():
        names = feature.get("names") or []
        if not isinstance(names, list) or not all(
            isinstance(text, str) and len(text) <= _LONGEST_NAME for text in names
        ):
            raise ValueError(f"the classes of {name[:80]!r} are no texts")
    return columns


def _size(path: Path) -> int:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    return path.stat().st_size


def _check(path: Path, size: int, unpacked: int) -> None:
    most = most_unpacked(size)
    if unpacked > most:
        raise ValueError(f"{path} unpacks to {unpacked:,} bytes; one of its size may to {most:,}")


def _unpacked(array: pa.Array) -> int:
    """Bytes of an array's values, with every repetition of a value counted."""
    if pa.types.is_struct(array.type):
        return sum(_unpacked(child) for child in array.flatten())
    if not pa.types.is_dictionary(array.type):
        return array.nbytes
    lengths = pc.binary_length(array.dictionary).cast(pa.int64())
    return int(pc.sum(lengths.take(array.indices)).as_py() or 0)
