"""Folders of images with one sub-folder per class, in `train/`, `test/`, `val/` or to be cut."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from vprompt_jax.clip.config import Resize
from vprompt_jax.data import listing
from vprompt_jax.data.copies import file_contents
from vprompt_jax.data.dataset import Dataset
from vprompt_jax.data.images import Records, splits
from vprompt_jax.process.errors import UserError
from vprompt_jax.process.printable import printable

Listed = tuple[list[Path], list[int], list[str]]  # files, labels and keys of a split


def load(
    root: Path, resolution: int, workers: int, on_bad: str = "stop", resize: Resize = "shortest"
) -> Dataset:
    """Reads the folder's structure and every image's header.

    Args:
      root: a folder that holds `train/CLASS/IMAGE` and optionally `test/` and `val/`, by these or
        other usual names (`listing.split_of`); or CLASS/IMAGE alone, which is all train. If it
        holds a single folder with all this, that folder is entered.
      resolution: side of the tower's input, in pixels.
      workers: number of threads that read.
      on_bad: "stop" or "skip" at files that are not images, and at images that belong to no class.
      resize: how an image becomes square; the tower's `config.resize`.

    Returns:
      A dataset whose class names are the folders' names, sorted; `test` is empty if there is none.

    Raises:
      UserError: if there are no classes, two folders mean one split, a split's classes differ from
        train's, a folder cannot be read, or a file is not an image; all offenders are listed.
    """
    try:
        return _load(root, resolution, workers, on_bad, resize)
    except OSError as error:
        raise listing.unreadable(error) from error


def sizes(root: Path) -> dict[str, int]:
    """Counts the pictures of every class that are not in a test or val split, without reading them.

    Args:
      root: as of `load`.

    Returns:
      The number of files by class, at least one each.

    Raises:
      UserError: as `load`, for what shows without reading a file.
    """
    try:
        layout = _layout(root)
        place = layout.places["train"]
        counts = {c: len(listing.pictures_below(place / c)[0]) for c in layout.classes}
    except OSError as error:
        raise listing.unreadable(error) from error
    _refuse_empty(place, [c for c, count in counts.items() if not count])
    return counts


def _refuse_empty(place: Path, classes: Sequence[str]) -> None:
    """Refuses a split whose folder has no image of some classes, if there are any."""
    if classes:
        raise UserError(f"{printable(place)}: no images of {', '.join(map(printable, classes))}")


@dataclasses.dataclass(frozen=True)
class _Layout:
    """How a dataset's folder is laid out.

    Attributes:
      root: the folder that holds the splits or the classes.
      places: the folder that holds the classes, by split.
      classes: names of the class folders, sorted.
      left_out: one line for each image, or folder of images, that belongs to no class.
      notes: one line for everything unusual.
    """

    root: Path
    places: dict[str, Path]
    classes: list[str]
    left_out: list[str]
    notes: list[str]


def _load(root: Path, resolution: int, workers: int, on_bad: str, resize: Resize) -> Dataset:
    layout = _layout(root)
    left_out = layout.left_out
    listed: dict[str, Listed] = {}
    for split, place in layout.places.items():
        folder_names = {p.name for p in listing.Entries.of(place).folders}
        if extra := sorted(folder_names - set(layout.classes)):
            listed_names = ", ".join(map(printable, extra))
            raise UserError(f"{printable(place)} has classes that train lacks: {listed_names}")
        files, labels = [], []
        for label, class_name in enumerate(layout.classes):
            if class_name in folder_names:
                pictures, others = listing.pictures_below(place / class_name)
                left_out += others
                files += pictures
                labels += [label] * len(pictures)
        empty = [c for i, c in enumerate(layout.classes) if i not in set(labels)]
        if split == "train" or not files:  # test may lack some: `load.prepare` says so
            _refuse_empty(place, empty)
        keys = [file.relative_to(layout.root).as_posix() for file in files]
        listed[split] = (files, labels, keys)
    records = of_files(listed, workers)
    by_split = splits(records, resolution, workers, on_bad, left_out, resize)
    empty_split = by_split["train"].take(np.array([], int))
    return Dataset(
        printable(root.resolve().name),
        tuple(layout.classes),
        by_split["train"],
        by_split.get("val"),
        by_split.get("test", empty_split),
        skipped=tuple(left_out),
        notes=tuple(layout.notes),
        folder=layout.root,
    )


def _layout(root: Path) -> _Layout:
    notes, left_out = [], []
    while True:
        entries = listing.Entries.of(root)
        left_out += listing.in_no_class(entries)
        only = entries.folders[0] if len(entries.folders) == 1 else None
        if only is None or listing.split_of(only.name) or not _holds_folders_alone(only):
            break
        notes.append(f"{printable(root)} holds one folder: what is in {printable(only)} is taken")
        root = only
    places = _places(root, entries.folders, left_out)
    for place in places.values():
        left_out += listing.in_no_class(listing.Entries.of(place))
    places = places or {"train": root}
    classes = [p.name for p in listing.Entries.of(places["train"]).folders]
    if not classes:
        raise UserError(
            f"{printable(places['train'])} holds no class folders: a dataset folder has "
            "train/CLASS/IMAGE (test/ and val/ are optional), or CLASS/IMAGE"
        )
    for name in classes:
        if name != printable(name):
            raise UserError(
                f"{printable(places['train'])}: a class's name becomes text, which "
                f"{printable(name)!r} is not: rename the folder"
            )
    return _Layout(root, places, classes, left_out, notes)


def _places(root: Path, folders: list[Path], left_out: list[str]) -> dict[str, Path]:
    """The folder of each split; empty if all folders are classes.

    Folders that are neither a split nor a class are added to `left_out`.
    """
    named = [p for p in folders if listing.split_of(p.name)]
    others = [p for p in folders if p not in named]
    if others and not any(listing.Entries.of(p).folders for p in named):
        return {}  # a class may be called "train", too
    by_split, _ = listing.splits_of([p.name for p in named], root)
    if named and "train" not in by_split:
        raise UserError(
            f"no folder {printable(root / 'train')} beside {', '.join(by_split.values())}: a "
            "dataset folder has train/CLASS/IMAGE (test/ and val/ are optional), or CLASS/IMAGE"
        )
    if named:
        for folder in others:
            if count := len(listing.pictures_below(folder)[0]):
                left_out.append(
                    f"{printable(folder)} (a folder of {count} images; a split's name is one of "
                    f"{listing.USUAL_NAMES})"
                )
    return {split: root / name for split, name in by_split.items()}


def _holds_folders_alone(folder: Path) -> bool:
    entries = listing.Entries.of(folder)
    return bool(entries.folders) and not any(map(listing.is_picture, entries.files))


def _describer(files: Sequence[Path]) -> Callable[[int], str]:
    return lambda i: printable(files[i])


def of_files(listed: dict[str, Listed], workers: int) -> dict[str, Records]:
    """Makes records of image files, by split; reads enough of them to know which are equal."""
    contents = iter(file_contents([f for files, _, _ in listed.values() for f in files], workers))
    return {
        split: Records(
            labels,
            keys,
            files.__getitem__,
            _describer(files),
            list(itertools.islice(contents, len(files))),
        )
        for split, (files, labels, keys) in listed.items()
    }
