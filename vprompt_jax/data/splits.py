"""How splits are cut where a source does not give them: by hash, the same on every machine.

Per class, examples are ordered by the SHA-256 of "seed:key". A cut takes the first of them, so it
depends on nothing but the seed, the keys and the labels: not on the order in which a source lists
its files, nor on its version.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from vprompt_jax.data.dataset import Dataset, Split
from vprompt_jax.process.errors import UserError

_VAL_SHOTS = 4  # at most, per class, beside few-shot training (CoOp, arXiv 2109.01134)


def first_by_hash(split: Split, count: Callable[[int], int], seed: int) -> np.ndarray:
    """Marks, per class of n examples, the first `count(n)` in the order of their hashes.

    Returns:
      bool [N].
    """
    digests = np.array([hashlib.sha256(f"{seed}:{key}".encode()).hexdigest() for key in split.keys])
    chosen = np.zeros(len(split), bool)
    for label in np.unique(split.labels):
        members = np.flatnonzero(split.labels == label)
        order = np.argsort(digests[members], kind="stable")
        chosen[members[order][: count(len(members))]] = True
    return chosen


def _cut(split: Split, fraction: float, seed: int) -> tuple[Split, Split]:
    """(the rest, a share of each class rounded up, but never all of it)."""
    chosen = first_by_hash(split, lambda n: min(math.ceil(fraction * n), n - 1), seed)
    return split.take(np.flatnonzero(~chosen)), split.take(np.flatnonzero(chosen))


def with_test(dataset: Dataset, fraction: float, seed: int = 0) -> Dataset:
    """Cuts a test split off train, where there is none."""
    if len(dataset.test):
        return dataset
    train, test = _cut(dataset.train, fraction, seed)
    return dataclasses.replace(dataset, train=train, test=test)


def with_validation(dataset: Dataset, fraction: float, seed: int = 0) -> Dataset:
    """Cuts a validation split off train, where there is none."""
    if dataset.val is not None:
        return dataset
    train, val = _cut(dataset.train, fraction, seed)
    return dataclasses.replace(dataset, train=train, val=val)


def few_shot(dataset: Dataset, shots: int, seed: int = 0) -> Dataset:
    """Keeps `shots` training examples per class, and at most 4 (or `shots`) for validation.

    Fewer shots are a subset of more, for the same seed.

    Raises:
      UserError: if a class has fewer training examples.
    """
    counts = np.bincount(dataset.train.labels, minlength=len(dataset.class_names))
    if counts.min() < shots:
        raise UserError(
            f"config.data.few_shot={shots}, but class {dataset.class_names[counts.argmin()]!r} has "
            f"{counts.min()} training images"
        )

    def kept(split: Split, most: int) -> Split:
        return split.take(np.flatnonzero(first_by_hash(split, lambda n: min(most, n), seed)))

    val = dataset.val and kept(dataset.val, min(shots, _VAL_SHOTS))
    return dataclasses.replace(dataset, train=kept(dataset.train, shots), val=val)


@dataclasses.dataclass(frozen=True)
class Entry:
    """One line of a list of images: a path, the class and the split ("train", "val", "test")."""

    path: str
    class_name: str
    split: str


def read_coop_file(path: Path) -> tuple[list[Entry], list[str]]:
    """Reads a split file of CoOp (split_zhou_*.json): lists of (path, label, class name) by split.

    Returns:
      The entries, and the class names by label.

    Raises:
      UserError: if the file is missing, of another form, or its labels are not 0..C-1 with one
        name each.
    """
    try:
        content = json.loads(path.read_text())
        entries = [
            Entry(str(image), str(name), split)
            for split in ("train", "val", "test")
            for image, _, name in content[split]
        ]
        pairs = {(int(label), str(name)) for rows in content.values() for _, label, name in rows}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"cannot read config.data.split_file={path} ({type(error).__name__}: {error}): it has "
            'to be CoOp\'s JSON, {"train": [[path, label, class name], ...], "val": ..., '
            '"test": ...}'
        ) from error
    names = [name for _, name in sorted(pairs)]
    if [label for label, _ in sorted(pairs)] != list(range(len(set(names)))):
        raise UserError(f"{path}: labels have to be 0..C-1, with one class name each")
    return entries, names


def arranged(dataset: Dataset, entries: list[Entry], class_names: list[str]) -> Dataset:
    """Deals a dataset's examples, of all its splits, to those that a list of images names.

    An example belongs to an entry if its key is the entry's path, or, where file names are
    unique, the path's last part.

    Raises:
      UserError: listing the entries that no example fits.
    """
    pool = dataset.train
    for part in (dataset.val, dataset.test):
        pool = pool if part is None or not len(part) else pool.joined(part)
    by_path = {key: i for i, key in enumerate(pool.keys)}
    by_name = {key.rsplit("/", 1)[-1]: i for i, key in enumerate(pool.keys)}
    unique = len(by_name) == len(pool)
    found = [
        by_path.get(e.path, by_name.get(e.path.rsplit("/", 1)[-1]) if unique else None)
        for e in entries
    ]
    if missing := [e.path for e, i in zip(entries, found, strict=True) if i is None]:
        listed = "\n  ".join(missing[:20])
        raise UserError(
            f"{dataset.name}: {len(missing)} images of config.data.split_file are not in the "
            f"source, which names its images like {pool.keys[0]!r}; with the files on disk, "
            f"config.data.source=folder finds them by path:\n  {listed}"
        )
    label_of = {name: label for label, name in enumerate(class_names)}
    made = {}
    for name in ("train", "val", "test"):
        rows = [
            (i, label_of[e.class_name])
            for e, i in zip(entries, found, strict=True)
            if e.split == name
        ]
        part = pool.take(np.array([i for i, _ in rows], int))
        labels = np.array([label for _, label in rows], np.int32)
        made[name] = dataclasses.replace(part, labels=labels)
    return dataclasses.replace(dataset, class_names=tuple(class_names), **made)
