"""What every source of images gives: splits with labels, and uint8 images on demand."""

import dataclasses
import hashlib
import math
from collections.abc import Callable, Sequence

import numpy as np

from vprompt_jax.errors import UserError

# Indices [n] -> images uint8 [n, h, w, 3], all of one size.
Fetch = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Split:
    """A list of labelled images.

    Attributes:
      labels: int32 [N].
      fetch: reads images by their index in this split.
      keys: a name per example that does not change between machines: decides on which side of a
        cut the example falls.
    """

    labels: np.ndarray
    fetch: Fetch
    keys: Sequence[str]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: np.ndarray) -> "Split":
        """The examples at `indices`, in that order."""
        return Split(
            self.labels[indices],
            lambda chosen: self.fetch(indices[chosen]),
            [self.keys[i] for i in indices],
        )


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Splits of one labelled image collection; `val` is None where the source has none."""

    name: str
    class_names: tuple[str, ...]
    train: Split
    val: Split | None
    test: Split


def split_of_arrays(images: np.ndarray, labels: np.ndarray) -> Split:
    """A split held in memory: uint8 [N, h, w, 3] and integers [N]."""
    keys = [str(i) for i in range(len(labels))]
    return Split(labels.astype(np.int32), lambda indices: images[indices], keys)


def with_validation(dataset: Dataset, fraction: float, seed: int = 0) -> Dataset:
    """Cuts a validation split off train, where there is none.

    Per class, the examples are ordered by the SHA-256 of "seed:key" and the first `fraction` of
    them (rounded up, but never all) validate: the same examples on every machine.
    """
    if dataset.val is not None:
        return dataset
    train = dataset.train
    digests = np.array([hashlib.sha256(f"{seed}:{key}".encode()).hexdigest() for key in train.keys])
    chosen = np.zeros(len(train), bool)
    for label in np.unique(train.labels):
        members = np.flatnonzero(train.labels == label)
        count = min(math.ceil(fraction * len(members)), len(members) - 1)
        chosen[members[np.argsort(digests[members])][:count]] = True
    return dataclasses.replace(
        dataset, train=train.take(np.flatnonzero(~chosen)), val=train.take(np.flatnonzero(chosen))
    )


def check(dataset: Dataset) -> None:
    """Refuses splits without images and labels without a class.

    Raises:
      UserError: naming the split.
    """
    classes = len(dataset.class_names)
    for name in ("train", "val", "test"):
        split = getattr(dataset, name)
        if split is None:
            continue
        if len(split) == 0:
            raise UserError(f"{dataset.name}: the {name} split holds no images")
        if split.labels.min() < 0 or split.labels.max() >= classes:
            raise UserError(
                f"{dataset.name}: the {name} split has labels {split.labels.min()}.."
                f"{split.labels.max()}, but there are {classes} class names"
            )
