"""A folder of images, a sub-folder per class: in `train/`, `test/` and `val/`, or to be cut."""

from pathlib import Path

import numpy as np

from vprompt_jax.data.dataset import Dataset
from vprompt_jax.data.images import SUFFIXES, Records, splits
from vprompt_jax.process.errors import UserError


def _folders(root: Path) -> list[str]:
    return sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def _files(folder: Path) -> tuple[list[Path], list[Path]]:
    """(images, other files) below a class's folder; hidden files do not count."""
    inside = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    images = [p for p in inside if p.suffix.lower() in SUFFIXES]
    return images, [p for p in inside if p.suffix.lower() not in SUFFIXES]


def load(root: Path, resolution: int, workers: int, on_bad: str = "stop") -> Dataset:
    """Reads the folder's structure and every image's header.

    Args:
      root: holds `train/CLASS/IMAGE`, and `test/` and `val/` likewise where they exist; or
        CLASS/IMAGE alone, which is all train.
      resolution: of the tower.
      workers: threads that read.
      on_bad: "stop" or "skip" at files that are not images.

    Returns:
      A dataset whose class names are the folders', sorted; `test` is empty where there is none.

    Raises:
      UserError: if there are no classes, a split's classes differ from train's, a folder cannot
        be read, or a file is not an image; all offenders are listed.
    """
    try:
        return _load(root, resolution, workers, on_bad)
    except OSError as error:
        raise UserError(f"cannot read the folder {error.filename}: {error.strerror}") from error


def _load(root: Path, resolution: int, workers: int, on_bad: str) -> Dataset:
    names = [s for s in ("train", "val", "test") if (root / s).is_dir()]
    if names and "train" not in names:
        raise UserError(
            f"no folder {root / 'train'}: a dataset folder has train/CLASS/IMAGE (test/ and val/ "
            "are optional), or CLASS/IMAGE"
        )
    places = {name: root / name for name in names} or {"train": root}
    classes = _folders(places["train"])
    if not classes:
        raise UserError(f"{places['train']} holds no class folders")
    records, strange = {}, []
    for name, place in places.items():
        if extra := sorted(set(_folders(place)) - set(classes)):
            raise UserError(f"{place} has classes that train lacks: {', '.join(extra)}")
        files, labels = [], []
        for label, class_name in enumerate(classes):
            images, others = _files(place / class_name)
            strange += others
            files += images
            labels += [label] * len(images)
        if empty := [c for i, c in enumerate(classes) if i not in set(labels)]:
            raise UserError(f"{place}: no images of {', '.join(empty)}")
        keys = [file.relative_to(root).as_posix() for file in files]
        records[name] = of_files(files, labels, keys)
    why = [f"{path} (its name ends in none of {' '.join(sorted(SUFFIXES))})" for path in strange]
    made = splits(records, resolution, workers, on_bad, why)
    nothing = made["train"].take(np.array([], int))
    return Dataset(
        root.resolve().name,
        tuple(classes),
        made["train"],
        made.get("val"),
        made.get("test", nothing),
        skipped=tuple(why),
    )


def of_files(files: list[Path], labels: list[int], keys: list[str]) -> Records:
    """Records of image files."""
    return Records(labels, keys, lambda i: files[i], lambda i: str(files[i]))
