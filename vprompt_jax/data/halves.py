"""Base and new classes: halves of a dataset, to measure on classes that were not trained on.

The halves are those of CoCoOp's code (KaiyangZhou/CoOp, `datasets/oxford_pets.py`): the first C / 2
classes, rounded up, and the rest.
"""

import dataclasses

import numpy as np

from vprompt_jax.data.dataset import Dataset, Split
from vprompt_jax.process.errors import UserError
from vprompt_jax.schema.sections import Half


def kept(dataset: Dataset, which: Half) -> Dataset:
    """The dataset with the classes of a half alone, and their images.

    Raises:
      UserError: if the half would have fewer than two classes.
    """
    if which == "all":
        return dataset
    classes = len(dataset.class_names)
    half = (classes + 1) // 2
    first, stop = (0, half) if which == "base" else (half, classes)
    if stop - first < 2:
        raise UserError(
            f"config.data.classes={which}: {dataset.name} has {classes} classes, and a half needs "
            "two or more: set config.data.classes=all"
        )

    return _only(dataset, np.arange(first, stop))


def occurring(dataset: Dataset) -> Dataset:
    """The dataset with those of its classes alone that have images, in their order."""
    return _only(dataset, np.unique(np.concatenate([s.labels for _, s in dataset.splits()])))


def _only(dataset: Dataset, classes: np.ndarray) -> Dataset:
    """The dataset with the classes of some labels, in rising order, and their images."""

    def own(split: Split) -> Split:
        of_classes = split.take(np.flatnonzero(np.isin(split.labels, classes)))
        labels = np.searchsorted(classes, of_classes.labels).astype(np.int32)
        return dataclasses.replace(of_classes, labels=labels)

    splits = {name: own(split) for name, split in dataset.splits()}
    names = tuple(dataset.class_names[label] for label in classes)
    return dataclasses.replace(dataset.with_splits(splits), class_names=names)
