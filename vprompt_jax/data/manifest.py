"""A list of image files: a CSV or JSONL manifest, or a split file of CoOp."""

import csv
import dataclasses
import functools
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vprompt_jax.data import listing
from vprompt_jax.data.dataset import Dataset
from vprompt_jax.data.folder import of_files
from vprompt_jax.data.images import splits
from vprompt_jax.data.splits import Entry, refuse_twice
from vprompt_jax.process.errors import UserError
from vprompt_jax.process.printable import printable


def load(path: Path, label: str, resolution: int, workers: int, on_bad: str = "stop") -> Dataset:
    """Reads a manifest and every image's header.

    Args:
      path: a .csv file with a header, or a .jsonl file of objects. Columns: `path` (from the
        manifest's folder), the class name, and optionally `split` (a usual name of one,
        `listing.split_of`; without it, all is train). White space at the ends of a class's name
        is dropped.
      label: the column of the class name; "" for `label`.
      resolution, workers, on_bad: as for `folder.load`.

    Raises:
      UserError: if it cannot be read, lacks a column or value, names one split in two ways, or
        names images that are missing, twice listed or unreadable; all offenders are listed.
    """
    label = label or "label"
    entries, named = [], {}
    trimmed: dict[str, int] = {}  # class names with white space at their ends, and where first
    for number, row in _rows(path):
        where = f"{printable(path)}, line {number}"
        for column in ("path", label):
            if not str(row.get(column) or "").strip():
                raise UserError(
                    f"{where}: no {column!r}: a manifest has the columns path, {label} and, "
                    "optionally, split"
                )
        given = str(row.get("split") or "").strip() or "train"
        split = listing.split_of(given)
        if split is None:
            raise UserError(f"{where}: split {given!r} is none of {listing.USUAL_NAMES}")
        named[given.lower()] = split
        class_name = str(row[label])
        if class_name != class_name.strip():
            trimmed.setdefault(class_name, number)
        entries.append(Entry(str(row["path"]), class_name.strip(), split))
    if not entries:
        raise UserError(f"{printable(path)} lists no images")
    listing.splits_of(named, path)
    names = sorted({entry.class_name for entry in entries})
    dataset = of_entries(
        printable(path.stem), path.parent, entries, names, resolution, workers, on_bad
    )
    notes = [
        f"{printable(path)}: white space at the ends of the class name {name!r} (line {number} is "
        "the first) was dropped"
        for name, number in trimmed.items()
    ]
    return dataclasses.replace(dataset, notes=tuple(notes))


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers and columns."""
    if path.suffix not in (".csv", ".jsonl"):
        raise UserError(f"{printable(path)}: a manifest's name ends in .csv or .jsonl")
    number = 0
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            if path.suffix == ".csv":
                reader = csv.DictReader(file, skipinitialspace=True)
                reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
                for row in reader:
                    yield reader.line_num, row
                return
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, dict(json.loads(line))
    except (OSError, ValueError, TypeError, csv.Error) as error:
        where = f", line {number}" if number else ""
        raise UserError(f"cannot read the manifest {printable(path)}{where}: {error}") from error


def of_entries(
    name: str,
    root: Path,
    entries: list[Entry],
    class_names: list[str],
    resolution: int,
    workers: int,
    on_bad: str,
) -> Dataset:
    """A dataset of listed files, whose paths start at `root`.

    Raises:
      UserError: listing files that are missing (and not to be skipped), or in the list twice by
        whatever paths.
    """
    refuse_twice(name, entries, _same_files(root, [e.path for e in entries]))
    there = [(root / e.path).is_file() for e in entries]
    missing = [
        f"{printable(root / e.path)} (no such file)"
        for e, t in zip(entries, there, strict=True)
        if not t
    ]
    label_of = {class_name: label for label, class_name in enumerate(class_names)}
    listed = {}
    for split in ("train", "val", "test"):
        rows = [e for e, t in zip(entries, there, strict=True) if t and e.split == split]
        labels = [label_of[e.class_name] for e in rows]
        listed[split] = ([root / e.path for e in rows], labels, [e.path for e in rows])
    made = splits(of_files(listed, workers), resolution, workers, on_bad, missing)
    val = made["val"] if len(made["val"]) else None
    return Dataset(
        name, tuple(class_names), made["train"], val, made["test"], skipped=tuple(missing)
    )


def _same_files(root: Path, paths: Sequence[str]) -> list[str]:
    """For each path the file it leads to, whatever links and `..` are on the way."""

    @functools.cache
    def folder(path: str) -> str:
        return os.path.realpath(path)

    def file(path: str) -> str:
        start, name = os.path.split(os.path.join(root, path))
        whole = os.path.join(folder(start), name)
        return os.path.realpath(whole) if name in (".", "..") or os.path.islink(whole) else whole

    return [file(path) for path in paths]
