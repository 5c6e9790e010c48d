"""Cuts splits that a source does not give, by hash and so alike on every machine.

In each class, examples are ordered by the SHA-256 of "seed:key", and a cut takes the first of them.
So it depends on the seed, the keys and the labels alone, not on the order in which a source lists
its files, nor on the source's version.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path

import numpy as np

from vprompt_jax.data.dataset import Dataset, Split, encoded
from vprompt_jax.process.errors import UserError
from vprompt_jax.process.printable import printable, some_of


def first_by_hash(
    split: Split, count: Callable[[int], int], seed: int, *, copies_together: bool = False
) -> np.ndarray:
    """Marks the first `count(n)` of the n examples of each class, in the order of their hashes.

    Args:
      split: the examples.
      count: n -> number of examples to mark.
      seed: seed of the hashes.
      copies_together: whether to mark all of an image's copies or none, as far as
        `split.content_keys` tells the copies. They are marked when it is the first one's turn,
        unless there are more copies than examples left to mark. Copies that belong to several
        classes are not marked.

    Returns:
      bool [N].
    """
    digests = np.array([hashlib.sha256(encoded(f"{seed}:{key}")).hexdigest() for key in split.keys])
    copies = _copies(split) if copies_together else {}
    chosen = np.zeros(len(split), bool)
    for label in np.unique(split.labels):
        members = np.flatnonzero(split.labels == label)
        order = members[np.argsort(digests[members], kind="stable")]
        left = count(len(members))
        if not copies:
            chosen[order[:left]] = True
            continue
        for i in order:
            group = copies.get(i, [i])
            if left <= 0:
                break
            if not chosen[i] and len(group) <= left and (split.labels[group] == label).all():
                chosen[group] = True
                left -= len(group)
    return chosen


def _copies(split: Split) -> dict[int, list[int]]:
    """For every image that occurs more than once: its index -> the indices of all its copies."""
    by_content: dict[str, list[int]] = {}
    for i, content in enumerate(split.content_keys or ()):
        by_content.setdefault(content, []).append(i)
    return {i: group for group in by_content.values() if len(group) > 1 for i in group}


def _cut(split: Split, fraction: float, seed: int) -> tuple[Split, Split]:
    """Returns (the rest, a share of each class, rounded up but never the whole class)."""
    chosen = first_by_hash(
        split, lambda n: min(math.ceil(fraction * n), n - 1), seed, copies_together=True
    )
    return split.take(np.flatnonzero(~chosen)), split.take(np.flatnonzero(chosen))


def with_test(dataset: Dataset, fraction: float, seed: int = 0) -> Dataset:
    """Cuts a test split off train if there is none."""
    if len(dataset.test):
        return dataset
    train, test = _cut(dataset.train, fraction, seed)
    return dataclasses.replace(dataset, train=train, test=test, cut=(*dataset.cut, "test"))


def with_validation(dataset: Dataset, fraction: float, seed: int = 0) -> Dataset:
    """Cuts a validation split off train if there is none."""
    if dataset.val is not None:
        return dataset
    train, val = _cut(dataset.train, fraction, seed)
    return dataclasses.replace(dataset, train=train, val=val, cut=(*dataset.cut, "val"))


def validation_shots(shots: int, val_shots: int | None) -> int:
    """Validation examples per class at most: `val_shots`, or as CoOp (arXiv 2109.01134)."""
    return min(shots, 4) if val_shots is None else val_shots


def few_shot(dataset: Dataset, shots: int, val_shots: int | None = None, seed: int = 0) -> Dataset:
    """Keeps `shots` training examples per class, and up to `validation_shots` for validation.

    For the same seed, fewer shots are a subset of more.

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

    val = dataset.val and kept(dataset.val, validation_shots(shots, val_shots))
    return dataclasses.replace(dataset, train=kept(dataset.train, shots), val=val)


@dataclasses.dataclass(frozen=True)
class Entry:
    """One line of a list of images: path, class name and split ("train", "val" or "test")."""

    path: str
    class_name: str
    split: str


@dataclasses.dataclass(frozen=True)
class SplitFile:
    """A list of images by split, as CoOp's code writes it.

    Attributes:
      name: of the file.
      sha256: of its bytes.
      entries: its lines.
      class_names: by label.
    """

    name: str
    sha256: str
    entries: list[Entry]
    class_names: list[str]


def read_coop_file(path: Path) -> SplitFile:
    """Reads a split file of CoOp (split_zhou_*.json): lists of (path, label, class name) by split.

    Raises:
      UserError: if the file is missing or has another form, train or test has no lines, or the
        labels are not 0..C-1 with one name each.
    """
    given = f"config.data.split_file={printable(path)}"
    try:
        stored = path.read_bytes()
        content = json.loads(stored.decode("utf-8-sig"))
        rows = [(split, *row) for split in ("train", "val", "test") for row in content[split]]
        entries = [Entry(image, name, split) for split, image, _, name in rows]
        labels = [(label, name) for _, _, label, name in rows]
        if not all(isinstance(t, str) for e in entries for t in (e.path, e.class_name)):
            raise TypeError("a path or class name is no text")
        if not all(type(label) is int for label, _ in labels):
            raise TypeError("a label is no whole number")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"cannot read {given} ({type(error).__name__}: {error}): it has to be CoOp's JSON, "
            '{"train": [[path, label, class name], ...], "val": ..., "test": ...}'
        ) from error
    for split in ("train", "test"):
        if not content[split]:
            raise UserError(
                f"{given} lists no images for {split}: its splits are taken as they are"
            )
    return SplitFile(
        path.name, hashlib.sha256(stored).hexdigest(), entries, _by_label(given, labels)
    )


def _by_label(given: str, labels: Sequence[tuple[int, str]]) -> list[str]:
    """The class names in the order of their labels, which have to be 0..C-1 with one name each."""
    names: dict[int, set[str]] = {}
    of_name: dict[str, set[int]] = {}
    for label, name in labels:
        names.setdefault(label, set()).add(name)
        of_name.setdefault(name, set()).add(label)
    several = [
        f"label {label} is called {', '.join(map(repr, sorted(called)))}"
        for label, called in sorted(names.items())
        if len(called) > 1
    ] + [
        f"{name!r} has the labels {', '.join(map(str, sorted(numbers)))}"
        for name, numbers in of_name.items()
        if len(numbers) > 1
    ]
    if several:
        raise UserError(f"{given}: a label has one class name:\n  {some_of(several)}")
    if absent := sorted(set(range(len(names))) - names.keys()):
        raise UserError(
            f"{given}: {len(names)} labels have to be 0 to {len(names) - 1}, but the largest is "
            f"{max(names)}, the smallest {min(names)}, and there is no "
            f"{some_of(list(map(str, absent)), separator=', ')}"
        )
    return [names[label].pop() for label in range(len(names))]


def arranged(dataset: Dataset, listed: SplitFile) -> Dataset:
    """Distributes the examples of all splits of a dataset anew, as a split file says.

    An example belongs to an entry if its key is the entry's path or, provided that file names are
    unique, the path's last part.

    Raises:
      UserError: listing the entries without an example, or examples with several entries.
    """
    pool = dataset.train
    for part in (dataset.val, dataset.test):
        pool = pool if part is None or not len(part) else pool.joined(part)
    entries = listed.entries
    by_path = {key: i for i, key in enumerate(pool.keys)}
    by_name = {key.rsplit("/", 1)[-1]: i for i, key in enumerate(pool.keys)}
    unique = len(by_name) == len(pool)
    matches = [
        by_path.get(e.path, by_name.get(e.path.rsplit("/", 1)[-1]) if unique else None)
        for e in entries
    ]
    if missing := [e.path for e, i in zip(entries, matches, strict=True) if i is None]:
        raise UserError(
            f"{dataset.name}: {len(missing):,} of the {len(entries):,} images of {listed.name} are "
            f"not in the source, which names its images like {pool.keys[0]!r}; with the files on "
            "disk, config.data.source=folder finds them by path:\n  "
            + some_of(list(map(printable, missing)))
        )
    refuse_twice(listed.name, entries, matches)
    label_of = {name: label for label, name in enumerate(listed.class_names)}
    parts = {}
    for name in ("train", "val", "test"):
        rows = [
            (i, label_of[e.class_name])
            for e, i in zip(entries, matches, strict=True)
            if e.split == name
        ]
        part = pool.take(np.array([i for i, _ in rows], int))
        labels = np.array([label for _, label in rows], np.int32)
        parts[name] = dataclasses.replace(part, labels=labels)
    return dataclasses.replace(
        dataset.with_splits(parts),
        class_names=tuple(listed.class_names),
        split_file=(listed.name, listed.sha256),
    )


def refuse_twice(name: str, entries: Sequence[Entry], images: Sequence[Hashable]) -> None:
    """Refuses a list that names an image more than once.

    Args:
      name: name of the list, for the message.
      entries: the list's lines.
      images: the image that each line stands for.

    Raises:
      UserError: listing such images, with their splits and all spellings of their paths.
    """
    by_image: dict[Hashable, list[str]] = {}
    for entry, image in zip(entries, images, strict=True):
        by_image.setdefault(image, []).append(f"{printable(entry.path)} ({entry.split})")
    if twice := [sorted(lines) for lines in by_image.values() if len(lines) > 1]:
        raise UserError(
            f"{name}: {len(twice)} images are listed twice; an image in two splits would be "
            "trained and tested on:\n  " + some_of(list(map(", ".join, twice)))
        )
