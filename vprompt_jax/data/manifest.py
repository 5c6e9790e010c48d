"""Datasets given as a list of image files: a CSV or JSONL manifest, or CoOp's split file."""

import csv
import dataclasses
import functools
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vprompt_jax.clip.config import Resize
from vprompt_jax.data import listing
from vprompt_jax.data.dataset import Dataset
from vprompt_jax.data.folder import of_files
from vprompt_jax.data.images import splits
from vprompt_jax.data.splits import Entry, SplitFile, refuse_twice
from vprompt_jax.process.errors import UserError
from vprompt_jax.process.printable import printable, some_of


def load(
    path: Path,
    label: str,
    resolution: int,
    workers: int,
    on_bad: str = "stop",
    resize: Resize = "shortest",
) -> Dataset:
    """Reads a manifest and every image's header.

    Args:
      path: a .csv file with a header, or a .jsonl file of objects. Its columns are `path` (relative
        to the manifest's folder), the class name, and optionally `split` (a usual name,
        `listing.split_of`; without it, all is train). White space at the ends of class names is
        dropped.
      label: the column of the class name; "" for `label`.
      resolution, workers, on_bad, resize: as for `folder.load`.

    Raises:
      UserError: if the file cannot be read, lacks a column or value, names one split in two ways,
        or names images that are missing, listed twice or unreadable; all offenders are listed.
    """
    label = label or "label"
    entries, split_names = [], {}
    trimmed: dict[str, int] = {}  # class names with white space at the ends -> first line
    for number, row in _rows(path):
        where = f"{printable(path)}, line {number}"
        for column in ("path", label):
            if not str(row.get(column) or "").strip():
                raise UserError(
                    f"{where}: no {column!r}: a manifest has the columns path, {label} and, "
                    "optionally, split"
                )
        split_name = str(row.get("split") or "").strip() or "train"
        split = listing.split_of(split_name)
        if split is None:
            raise UserError(f"{where}: split {split_name!r} is none of {listing.USUAL_NAMES}")
        split_names[split_name.lower()] = split
        class_name = str(row[label])
        if class_name != class_name.strip():
            trimmed.setdefault(class_name, number)
        entries.append(Entry(str(row["path"]), class_name.strip(), split))
    if not entries:
        raise UserError(f"{printable(path)} lists no images")
    listing.splits_of(split_names, path)
    names = sorted({entry.class_name for entry in entries})
    reading = (resolution, workers, on_bad, resize)
    dataset = of_entries(printable(path.stem), path.parent, entries, names, *reading)
    notes = [
        f"{printable(path)}: white space at the ends of the class name {name!r} (line {number} is "
        "the first) was dropped"
        for name, number in trimmed.items()
    ]
    return dataclasses.replace(dataset, notes=tuple(notes))


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields the line number and the columns of every row."""
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


def of_split_file(
    root: Path,
    listed: SplitFile,
    resolution: int,
    workers: int,
    on_bad: str,
    resize: Resize,
) -> Dataset:
    """Makes a dataset of the files that a split file lists, whose paths are relative to `root`.

    Raises:
      UserError: as `of_entries`; files that are missing have a message of their own.
    """
    missing = [e.path for e in listed.entries if not (root / e.path).is_file()]
    if missing and on_bad == "stop":
        raise UserError(
            f"{len(missing):,} of the {len(listed.entries):,} images of {printable(listed.name)} "
            f"are not in {printable(root)}: set config.data.dir to the folder that its paths start "
            "from, or leave the images out with config.data.on_bad_image=skip\n  "
            + some_of(list(map(printable, missing)))
        )
    reading = (resolution, workers, on_bad, resize)
    dataset = of_entries(printable(root.name), root, listed.entries, listed.class_names, *reading)
    return dataclasses.replace(dataset, split_file=(listed.name, listed.sha256))


def of_entries(
    name: str,
    root: Path,
    entries: list[Entry],
    class_names: list[str],
    resolution: int,
    workers: int,
    on_bad: str,
    resize: Resize,
) -> Dataset:
    """Makes a dataset of listed files, whose paths are relative to `root`.

    Raises:
      UserError: listing files that are missing (unless they are skipped), or that are in the list
        twice, even by different paths.
    """
    refuse_twice(name, entries, _same_files(root, [e.path for e in entries]))
    exists = [(root / e.path).is_file() for e in entries]
    missing = [
        f"{printable(root / e.path)} (no such file)"
        for e, is_there in zip(entries, exists, strict=True)
        if not is_there
    ]
    label_of = {class_name: label for label, class_name in enumerate(class_names)}
    listed = {}
    for split in ("train", "val", "test"):
        rows = [e for e, is_there in zip(entries, exists, strict=True) if is_there]
        rows = [e for e in rows if e.split == split]
        labels = [label_of[e.class_name] for e in rows]
        listed[split] = ([root / e.path for e in rows], labels, [e.path for e in rows])
    by_split = splits(of_files(listed, workers), resolution, workers, on_bad, missing, resize)
    val = by_split["val"] if len(by_split["val"]) else None
    return Dataset(
        name, tuple(class_names), by_split["train"], val, by_split["test"],
        skipped=tuple(missing), folder=root,
    )  # fmt: skip


def _same_files(root: Path, paths: Sequence[str]) -> list[str]:
    """Resolves each path to the file it leads to, through all links and `..`."""

    @functools.cache
    def folder(path: str) -> str:
        return os.path.realpath(path)

    def file(path: str) -> str:
        start, name = os.path.split(os.path.join(root, path))
        whole = os.path.join(folder(start), name)
        return os.path.realpath(whole) if name in (".", "..") or os.path.islink(whole) else whole

    return [file(path) for path in paths]
