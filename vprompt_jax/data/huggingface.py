"""Hugging Face `datasets` on disk: Parquet files, or a folder that `save_to_disk` wrote.

Read with pyarrow alone: both are Arrow tables, whose schema carries the features as JSON.
"""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa

from vprompt_jax.data import arrow_files
from vprompt_jax.data.dataset import Dataset
from vprompt_jax.data.images import Records, Stored, splits
from vprompt_jax.process import json_files
from vprompt_jax.process.errors import UserError

_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def load(path: Path, label: str, resolution: int, workers: int, on_bad: str = "stop") -> Dataset:
    """Reads the tables and every image's header.

    Args:
      path: a .parquet file (all train), a folder with `train-*.parquet`, `test-*.parquet` (as on
        the Hub, also in `data/`), or a folder made by `save_to_disk`. Parquet is held in memory as
        stored; a saved folder is mapped.
      label: the column of the label; "" for the only class label or the column `label`.
      resolution, workers, on_bad: as for `folder.load`.

    Raises:
      UserError: if there is no table, or none with an image and a label; if an image is unreadable.
    """
    try:
        tables = _tables(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException) as error:
        raise UserError(f"cannot read the dataset {path}: {error or repr(error)}") from error
    unknown = sorted(set(tables) - set(_SPLITS))
    if "train" not in tables:
        raise UserError(f"{path} has no train split, only {', '.join(unknown) or 'nothing'}")
    columns = _columns(path, tables["train"].schema, label)
    names = columns[2] or _strings(path, tables, columns[1])
    records = {
        _SPLITS[split]: _records(path, split, table, columns, names)
        for split, table in tables.items()
        if split in _SPLITS
    }
    made = splits(records, resolution, workers, on_bad)
    nothing = made["train"].take(np.array([], int))
    return Dataset(
        path.stem, tuple(names), made["train"], made.get("val"), made.get("test", nothing)
    )


def _saved(folder: Path) -> pa.Table:
    """A split that `save_to_disk` wrote."""
    state = json_files.read_object(folder / "state.json")
    if state.get("_indices_data_files"):
        raise ValueError(f"{folder} selects rows by an index: call flatten_indices() before saving")
    parts = []
    for file in state["_data_files"]:
        parts.append(arrow_files.read_stream(arrow_files.inside(folder, file["filename"])))
    return pa.concat_tables(parts)


def _tables(path: Path) -> dict[str, pa.Table]:
    if path.is_file():
        return {"train": arrow_files.read_parquet(path)}
    if (path / "dataset_dict.json").is_file():
        listed = json_files.read_object(path / "dataset_dict.json")["splits"]
        return {
            split: _saved(arrow_files.inside(path, f"{split}/state.json").parent)
            for split in listed
        }
    if (path / "state.json").is_file():
        return {"train": _saved(path)}
    files: dict[str, list[Path]] = {}
    for file in sorted([*path.glob("*.parquet"), *path.glob("data/*.parquet")]):
        files.setdefault(file.stem.split("-")[0], []).append(file)
    if not files:
        raise ValueError("no .parquet file, dataset_dict.json or state.json there")
    return {
        split: pa.concat_tables([arrow_files.read_parquet(f) for f in found])
        for split, found in files.items()
    }


def _columns(path: Path, schema: pa.Schema, label: str) -> tuple[str, str, list[str] | None]:
    """Names of the image's and the label's column, and the class names if the schema has them."""
    try:
        features = arrow_files.features(schema)
    except ValueError as error:
        raise UserError(f"cannot read the dataset {path}: {error}") from error
    kinds = {name: feature.get("_type") for name, feature in features.items()}
    images = [name for name, kind in kinds.items() if kind == "Image" and name in schema.names]
    images = images or [name for name in ("image", "img") if name in schema.names]
    labels = [label] if label else [name for name, kind in kinds.items() if kind == "ClassLabel"]
    labels = labels or ["label"]
    if not images:
        raise UserError(f"{path} has no column of images, only {', '.join(schema.names)}")
    if len(labels) > 1 or labels[0] not in schema.names:
        raise UserError(
            f"{path}: config.data.label has to name the column of the label: one of "
            f"{', '.join(labels if len(labels) > 1 else schema.names)}"
        )
    feature = features.get(labels[0]) or {}
    return images[0], labels[0], feature.get("names")


def _strings(path: Path, tables: dict[str, pa.Table], column: str) -> list[str]:
    """Class names from the labels themselves, sorted."""
    values = [v for table in tables.values() for v in table.column(column).to_pylist()]
    if not all(isinstance(v, str) for v in values):
        raise UserError(
            f"{path}: the column {column} holds numbers, and the file does not say what they stand "
            "for: save it with the ClassLabel feature, or with class names as strings"
        )
    return sorted(set(values))


def _records(path: Path, split: str, table: pa.Table, columns, names: list[str]) -> Records:
    images, labels = table.column(columns[0]), table.column(columns[1]).to_pylist()
    if labels and isinstance(labels[0], str):
        label_of = {name: label for label, name in enumerate(names)}
        labels = [label_of.get(value, value) for value in labels]
    if None in labels:
        raise UserError(f"{path}: row {labels.index(None)} of {split} has no label")
    if odd := [v for v in labels if type(v) is not int or not 0 <= v < len(names)]:
        raise UserError(f"{path}: {split} has the label {str(odd[0])[:40]!r}, which is no class")

    root = path if path.is_dir() else path.parent

    def read(i: int) -> Stored:
        return arrow_files.picture(images[i].as_py(), root)

    def key(i: int) -> str:
        try:
            stored = read(i)
            return hashlib.sha256(
                stored if isinstance(stored, bytes) else stored.read_bytes()
            ).hexdigest()
        except (OSError, ValueError):  # reported with the other unreadable images
            return f"{split} row {i}"

    keys = [key(i) for i in range(len(labels))]
    return Records(labels, keys, read, lambda i: f"{path}, {split} row {i}")
