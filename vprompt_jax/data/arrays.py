"""Datasets of NumPy arrays, given in Python or as an .npz file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from vprompt_jax.data.dataset import Dataset, Split, split_of_arrays
from vprompt_jax.process.errors import UserError

_SPLITS = ("train", "val", "test")
Labelled = tuple[np.ndarray, np.ndarray]


def _split(name: str, images: ArrayLike, labels: ArrayLike) -> Split:
    pixels, numbers = np.asarray(images), np.asarray(labels)
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[-1] not in (1, 3):
        raise UserError(
            f"the {name} images are {pixels.dtype} {list(pixels.shape)}: give uint8 [N, h, w, 3] "
            "(or 1 channel), grey levels 0..255"
        )
    if numbers.shape != pixels.shape[:1] or not np.issubdtype(numbers.dtype, np.integer):
        raise UserError(
            f"the {name} labels are {numbers.dtype} {list(numbers.shape)}: give one integer for "
            f"each of the {len(pixels)} images"
        )
    if len(pixels) == 0:
        raise UserError(f"the {name} split has no images: leave it out, or give it some")
    return split_of_arrays(np.broadcast_to(pixels, (*pixels.shape[:3], 3)), numbers)


def _text(name: object) -> str:
    if not isinstance(name, bytes):
        return str(name)
    try:
        return name.decode()
    except UnicodeDecodeError as error:
        raise UserError(
            f"the class name {name!r} is not UTF-8: give class names as text"
        ) from error


def from_arrays(
    images: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    *,
    val: Labelled | None = None,
    test: Labelled | None = None,
    name: str = "arrays",
) -> Dataset:
    """Makes a dataset from arrays in memory.

    Args:
      images: training images, uint8 [N, h, w, 3] or [N, h, w, 1].
      labels: their labels, integers [N] in 0..C-1.
      class_names: C names, as they are put into the prompt template (UTF-8 if they are bytes).
      val, test: images and labels; a missing split is cut from train when the dataset is loaded
        for a run.
      name: name of the dataset in results.

    Raises:
      UserError: if an array has another type or shape, or a class name is not text.
    """
    train = _split("train", images, labels)
    empty = train.take(np.array([], int))
    return Dataset(
        name,
        tuple(_text(n) for n in class_names),
        train,
        None if val is None else _split("val", *val),
        empty if test is None else _split("test", *test),
    )


def save(dataset: Dataset, path: Path | str) -> None:
    """Writes a dataset to an .npz file that `config.data.source=arrays` reads.

    The file holds `class_names` and, for each split, arrays such as `train_images` and
    `train_labels`.
    """
    content: dict[str, Any] = {"class_names": np.array(dataset.class_names)}
    for name, split in dataset.splits():
        if len(split):
            content[f"{name}_images"] = split.fetch(np.arange(len(split)))
            content[f"{name}_labels"] = split.labels
    np.savez_compressed(path, **content)


def load(path: Path) -> Dataset:
    """Reads what `save` wrote.

    Raises:
      UserError: if the file is missing, is no .npz file, or lacks an array.
    """
    try:
        with np.load(path, allow_pickle=False) as content:
            arrays = dict(content)
        labelled = {
            s: (arrays[f"{s}_images"], arrays[f"{s}_labels"])
            for s in _SPLITS
            if f"{s}_images" in arrays
        }
        train, names = labelled["train"], arrays["class_names"]
    except KeyError as error:
        raise UserError(
            f"{path} has no array {error}: it needs class_names, train_images and train_labels "
            "(val_ and test_ likewise are optional)"
        ) from error
    except Exception as error:  # NumPy and zipfile raise many kinds
        raise UserError(f"cannot read the arrays of {path}: {error}") from error
    return from_arrays(
        *train,
        names.tolist(),
        val=labelled.get("val"),
        test=labelled.get("test"),
        name=Path(path).stem,
    )
