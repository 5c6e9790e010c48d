"""Hugging Face `datasets` on disk: Parquet files, or a folder that `save_to_disk` wrote.

Both are Arrow tables whose schema holds the features as JSON, so pyarrow alone can read them.
"""

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

from vprompt_jax.clip.config import Resize
from vprompt_jax.data import arrow_files, listing
from vprompt_jax.data.dataset import Dataset
from vprompt_jax.data.images import Records, splits
from vprompt_jax.process import json_files
from vprompt_jax.process.errors import UserError
from vprompt_jax.process.printable import printable


def load(
    path: Path,
    label: str,
    resolution: int,
    workers: int,
    on_bad: str = "stop",
    resize: Resize = "shortest",
) -> Dataset:
    """Reads the tables and every image's header.

    Args:
      path: a .parquet file, which is all train; a folder with `train-*.parquet`, `test-*.parquet`
        (as on the Hub, also in a folder of their own, or in `train/`, `test/`); or a folder made by
        `save_to_disk`. Parquet is held in memory as stored; a saved folder is memory-mapped.
      label: the label's column; "" for the only class label, or else the column `label`.
      resolution, workers, on_bad, resize: as for `folder.load`. Splits of unusual names are
        left out under "skip".

    Raises:
      UserError: if no table has an image and a label; if two names mean the same split, or splits
        differ in their classes; if a row has no label, or its image is unreadable.
    """
    where = printable(path)
    try:
        shards = _shards(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException) as error:
        raise UserError(f"cannot read the dataset {where}: {error or repr(error)}") from error
    names_of_splits, others = listing.splits_of(shards, where)
    if not names_of_splits:
        raise UserError(
            f"{where} has no train or test split, only {', '.join(shards) or 'nothing'}"
        )
    first = next(iter(names_of_splits.values()))
    left_out = [
        f"{where}, split {other!r} ({sum(t.num_rows for t in shards[other])} rows; a split's name "
        f"is one of {listing.USUAL_NAMES})"
        for other in others
    ]
    columns = _Columns.of(where, shards[first][0].schema, label)
    names, labels = _labels(where, {s: shards[s] for s in names_of_splits.values()}, columns)
    root = path if path.is_dir() else path.parent
    records = {
        split: _records(f"{where}, {name}", root, shards[name], columns.image, labels[name])
        for split, name in names_of_splits.items()
    }
    by_split = splits(records, resolution, workers, on_bad, left_out, resize)
    empty = by_split[next(iter(by_split))].take(np.array([], int))
    return Dataset(
        printable(path.stem),
        tuple(names),
        by_split.get("train", empty),
        by_split.get("val"),
        by_split.get("test", empty),
        skipped=tuple(left_out),
    )


def _saved(folder: Path) -> list[pa.Table]:
    """Maps the tables of a split that `save_to_disk` wrote."""
    state = json_files.read_object(folder / "state.json")
    if state.get("_indices_data_files"):
        raise ValueError(f"{folder} selects rows by an index: call flatten_indices() before saving")
    if not (files := state["_data_files"]):
        raise ValueError(f"{folder} names no data files: save the dataset again")
    return [arrow_files.read_stream(arrow_files.inside(folder, file["filename"])) for file in files]


def _shards(path: Path) -> dict[str, list[pa.Table]]:
    """Reads the tables of every split, under the dataset's own names of splits."""
    if path.is_file():
        return {"train": [arrow_files.read_parquet(path)]}
    if (path / "dataset_dict.json").is_file():
        listed = json_files.read_object(path / "dataset_dict.json")["splits"]
        return {
            split: _saved(arrow_files.inside(path, f"{split}/state.json").parent)
            for split in listed
        }
    if (path / "state.json").is_file():
        return {"train": _saved(path)}
    by_folder: dict[Path, dict[str, list[Path]]] = {}
    for file in _parquet_below(path):
        split, folder = _split_of_file(file.relative_to(path))
        by_folder.setdefault(folder, {}).setdefault(split, []).append(file)
    if not by_folder:
        raise ValueError("no .parquet file, dataset_dict.json or state.json there")
    if len(by_folder) > 1:
        raise ValueError(
            "it holds several datasets: set config.data.dir to one of "
            + ", ".join(printable(path / folder) for folder in sorted(by_folder))
        )
    (by_split,) = by_folder.values()
    return {
        split: [arrow_files.read_parquet(f) for f in files] for split, files in by_split.items()
    }


def _parquet_below(folder: Path) -> list[Path]:
    entries = listing.Entries.of(folder)
    files = [file for file in entries.files if file.suffix == ".parquet"]
    return sorted(files + [file for inner in entries.folders for file in _parquet_below(inner)])


def _split_of_file(file: Path) -> tuple[str, Path]:
    """The split that a file's name or its folder's name tells, and the dataset's folder.

    On the Hub there are train-00000-of-00002.parquet, NAME-train.parquet and train/0000.parquet.
    """
    words = re.split(r"[-_.]", file.stem)
    usual = {word for word in words if listing.split_of(word)}
    if len(usual) == 1:
        return usual.pop(), file.parent
    if listing.split_of(file.parent.name):
        return file.parent.name, file.parent.parent
    return words[0] if not usual else file.stem, file.parent


@dataclasses.dataclass(frozen=True)
class _Columns:
    """Names of a table's columns of images and labels."""

    image: str
    label: str

    @classmethod
    def of(cls, where: str, schema: pa.Schema, label: str) -> "_Columns":
        """Finds the two columns in a schema.

        Raises:
          UserError: if there is no column of images, or it is unclear which one is the label.
        """
        try:
            features = arrow_files.features(schema)
        except ValueError as error:
            raise UserError(f"cannot read the dataset {where}: {error}") from error
        kinds = {name: feature.get("_type") for name, feature in features.items()}
        images = [name for name, kind in kinds.items() if kind == "Image" and name in schema.names]
        images = images or [name for name in ("image", "img") if name in schema.names]
        labels = [label] if label else [n for n, kind in kinds.items() if kind == "ClassLabel"]
        labels = labels or ["label"]
        if not images:
            raise UserError(f"{where} has no column of images, only {', '.join(schema.names)}")
        if len(labels) > 1 or labels[0] not in schema.names:
            raise UserError(
                f"{where}: config.data.label has to name the column of the label: one of "
                f"{', '.join(labels if len(labels) > 1 else schema.names)}"
            )
        return cls(images[0], labels[0])


def _labels(
    where: str, shards: Mapping[str, list[pa.Table]], columns: _Columns
) -> tuple[list[str], dict[str, list[int]]]:
    """Returns the class names, and every split's labels as indices into them.

    The names are those of the first split's first table, in its order, or else the labels
    themselves, sorted. Labels are matched by name, since another table may number the same names
    differently.
    """
    rows = {
        split: [name for table in tables for name in _names(f"{where}, {split}", table, columns)]
        for split, tables in shards.items()
    }
    first = next(iter(shards))
    names = _class_names(where, shards[first][0].schema, columns.label)
    names = names or sorted({name for of_split in rows.values() for name in of_split})
    label_of = {name: label for label, name in enumerate(names)}
    for split, of_split in rows.items():
        if not of_split:
            raise UserError(f"{where}: the {split} split has no rows: move it away")
        if strange := sorted(set(of_split) - set(label_of)):
            raise UserError(
                f"{where}: the {split} split has classes that {first} lacks: "
                f"{', '.join(strange[:20])}{', ...' if len(strange) > 20 else ''}"
            )
    return names, {split: [label_of[n] for n in of_split] for split, of_split in rows.items()}


def _class_names(where: str, schema: pa.Schema, label: str) -> list[str] | None:
    try:
        return arrow_files.features(schema).get(label, {}).get("names")
    except ValueError as error:
        raise UserError(f"cannot read the dataset {where}: {error}") from error


def _names(where: str, table: pa.Table, columns: _Columns) -> list[str]:
    """The class name of every row of a table."""
    for column in (columns.image, columns.label):
        if column not in table.schema.names:
            raise UserError(
                f"{where} has no column {column!r}, only {', '.join(table.schema.names)}: a split "
                "without images or labels is of no use here, so move its files away"
            )
    values = table.column(columns.label).to_pylist()
    if None in values:
        raise UserError(
            f"{where}: row {values.index(None)} has no label ({values.count(None)} such rows): "
            "remove them"
        )
    if all(isinstance(value, str) for value in values):
        return values
    names = _class_names(where, table.schema, columns.label)
    if names is None or not all(type(value) is int for value in values):
        raise UserError(
            f"{where}: the column {columns.label} holds numbers, and the file does not say what "
            "they stand for: save it with the ClassLabel feature, or with class names as strings"
        )
    for row, value in enumerate(values):
        if not 0 <= value < len(names):
            raise UserError(
                f"{where}: row {row} has the label {value}, but there are {len(names)} class "
                "names; -1 marks images without a label: move such a split away"
            )
    return [names[value] for value in values]


def _records(
    where: str, root: Path, tables: list[pa.Table], column: str, labels: list[int]
) -> Records:
    cells = [table.column(column) for table in tables]
    starts = np.cumsum([0, *(len(c) for c in cells)])

    def read(i: int) -> bytes | Path:
        table = int(np.searchsorted(starts, i, side="right")) - 1
        return arrow_files.picture(cells[table][i - int(starts[table])].as_py(), root)

    def key(i: int) -> str:
        try:
            stored = read(i)
            content = stored if isinstance(stored, bytes) else stored.read_bytes()
            return hashlib.sha256(content).hexdigest()
        except (OSError, ValueError):  # reported with the other unreadable images
            return f"{where} row {i}"

    keys = [key(i) for i in range(len(labels))]
    return Records(labels, keys, read, lambda i: f"{where} row {i}", keys)
