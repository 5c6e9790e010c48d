"""A list of image files: a CSV or JSONL manifest, or a split file of CoOp."""

import csv
import json
from pathlib import Path

from vprompt_jax.data.dataset import Dataset
from vprompt_jax.data.folder import of_files
from vprompt_jax.data.images import splits
from vprompt_jax.data.splits import Entry
from vprompt_jax.process.errors import UserError

_SPLITS = {"train": "train", "val": "val", "validation": "val", "test": "test"}


def load(path: Path, label: str, resolution: int, workers: int, on_bad: str = "stop") -> Dataset:
    """Reads a manifest and every image's header.

    Args:
      path: a .csv file with a header, or a .jsonl file of objects. Columns: `path` (from the
        manifest's folder), the class name, and optionally `split` (train, val or test; without
        it, all is train).
      label: the column of the class name; "" for `label`.
      resolution, workers, on_bad: as for `folder.load`.

    Raises:
      UserError: if it cannot be read, lacks a column or value, or names images that are missing,
        twice listed or unreadable; all offenders are listed.
    """
    label = label or "label"
    entries = []
    for number, row in _rows(path):
        where = f"{path}, line {number}"
        for column in ("path", label):
            if row.get(column) in (None, ""):
                raise UserError(
                    f"{where}: no {column!r}: a manifest has the columns path, {label} and, "
                    "optionally, split"
                )
        split = str(row.get("split") or "train")
        if split not in _SPLITS:
            raise UserError(f"{where}: split {split!r} is none of {', '.join(_SPLITS)}")
        entries.append(Entry(str(row["path"]), str(row[label]), _SPLITS[split]))
    if not entries:
        raise UserError(f"{path} lists no images")
    names = sorted({entry.class_name for entry in entries})
    return of_entries(path.stem, path.parent, entries, names, resolution, workers, on_bad)


def _rows(path: Path):
    """Line numbers and columns."""
    if path.suffix not in (".csv", ".jsonl"):
        raise UserError(f"{path}: a manifest's name ends in .csv or .jsonl")
    number = 0
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            if path.suffix == ".csv":
                reader = csv.DictReader(file)
                for row in reader:
                    yield reader.line_num, row
                return
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, dict(json.loads(line))
    except (OSError, ValueError, TypeError) as error:
        where = f", line {number}" if number else ""
        raise UserError(f"cannot read the manifest {path}{where}: {error}") from error


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
      UserError: listing files that are missing (and not to be skipped) or in the list twice.
    """
    seen: set[str] = set()
    twice = sorted({e.path for e in entries if e.path in seen or seen.add(e.path)})
    if twice:
        raise UserError(
            f"{name}: {len(twice)} images are listed twice; an image in two splits would be "
            "trained and tested on:\n  " + "\n  ".join(twice[:20])
        )
    there = [(root / e.path).is_file() for e in entries]
    missing = [
        f"{root / e.path} (no such file)" for e, t in zip(entries, there, strict=True) if not t
    ]
    label_of = {class_name: label for label, class_name in enumerate(class_names)}
    records = {}
    for split in ("train", "val", "test"):
        rows = [e for e, t in zip(entries, there, strict=True) if t and e.split == split]
        labels = [label_of[e.class_name] for e in rows]
        records[split] = of_files([root / e.path for e in rows], labels, [e.path for e in rows])
    made = splits(records, resolution, workers, on_bad, missing)
    val = made["val"] if len(made["val"]) else None
    return Dataset(
        name, tuple(class_names), made["train"], val, made["test"], skipped=tuple(missing)
    )
