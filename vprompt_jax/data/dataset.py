"""What every source of images gives: splits with labels, and uint8 images on demand."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

import numpy as np

from vprompt_jax.data.info import GENERAL_TEMPLATES, VP_TEMPLATE
from vprompt_jax.process.errors import UserError

# Indices [n] -> images uint8 [n, h, w, 3], all of one size.
Fetch = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Split:
    """A list of labelled images.

    Attributes:
      labels: int32 [N].
      fetch: reads images by their index in this split.
      keys: a name per example that does not change between machines (the dataset's own, else the
        SHA-256 of the stored image): decides on which side of a cut the example falls.
      content: what `fetch` gives: "image", or "activation" (float [n, ...]) of a cached prefix.
    """

    labels: np.ndarray
    fetch: Fetch
    keys: Sequence[str]
    content: Literal["image", "activation"] = "image"

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: np.ndarray) -> "Split":
        """The examples at `indices`, in that order."""
        return Split(
            self.labels[indices],
            lambda chosen: self.fetch(indices[chosen]),
            [self.keys[i] for i in indices],
            self.content,
        )

    def joined(self, other: "Split") -> "Split":
        """This split's examples, then the other's; their images have to be of one size."""

        def fetch(chosen: np.ndarray) -> np.ndarray:
            here = chosen < len(self)
            parts = [(here, self, 0), (~here, other, len(self))]
            read = [(m, s.fetch(chosen[m] - start)) for m, s, start in parts if m.any()]
            images = np.empty((len(chosen), *read[0][1].shape[1:]), np.uint8)
            for mask, part in read:
                images[mask] = part
            return images

        labels = np.concatenate([self.labels, other.labels])
        return Split(labels, fetch, [*self.keys, *other.keys])

    @property
    def digest(self) -> str:
        """SHA-256 over the sorted keys: equal for equal examples, whatever their order."""
        return hashlib.sha256("\n".join(sorted(self.keys)).encode()).hexdigest()


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Splits of one labelled image collection.

    Attributes:
      name: for results and messages.
      class_names: by label, fit for a prompt.
      train, val, test: `val` is None where there is none (yet); a source may give an empty `test`
        for `splits.with_test` to fill.
      template: the single prompt template.
      ensemble: templates whose embeddings are averaged.
      skipped: what was left out, and why, under `on_bad_image=skip`.
      contents: what changes with the stored images, see `contents.of_source`; "" where the keys do.
    """

    name: str
    class_names: tuple[str, ...]
    train: Split
    val: Split | None
    test: Split
    template: str = VP_TEMPLATE
    ensemble: tuple[str, ...] = GENERAL_TEMPLATES
    skipped: tuple[str, ...] = ()
    contents: str = ""

    def splits(self) -> Iterator[tuple[str, Split]]:
        """The splits that exist, with their names."""
        for name in ("train", "val", "test"):
            if (split := getattr(self, name)) is not None:
                yield name, split

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits that change with any example, label, class name or split."""
        digest = hashlib.sha256("\n".join(self.class_names).encode())
        for name, split in self.splits():
            rows = sorted(
                f"{k}\t{label}" for k, label in zip(split.keys, split.labels, strict=True)
            )
            digest.update("\n".join([f"\n{name}", *rows]).encode())
        return digest.hexdigest()[:16]

    @property
    def identity(self) -> str:
        """SHA-256 of the class names, of every split's keys and labels in their order, and of
        `contents`."""
        digest = hashlib.sha256()

        def add(lines: Iterable[str]) -> None:
            for line in lines:
                digest.update(line.encode() + b"\n")

        add(self.class_names)
        add([self.contents] if self.contents else [])
        for name in ("train", "val", "test"):
            split = getattr(self, name)
            add([f"{name} {0 if split is None else len(split)}"])
            if split is not None:
                add(split.keys)
                digest.update(np.asarray(split.labels, np.int32))
        return digest.hexdigest()


def hash_keys(images: np.ndarray) -> list[str]:
    """SHA-256 of each image's pixels: keys for images without a name of their own."""
    return [hashlib.sha256(np.ascontiguousarray(image)).hexdigest() for image in images]


def split_of_arrays(images: np.ndarray, labels: np.ndarray) -> Split:
    """A split held in memory: uint8 [N, h, w, 3] and integers [N]."""
    return Split(labels.astype(np.int32), lambda indices: images[indices], hash_keys(images))


def check(dataset: Dataset) -> None:
    """Refuses splits without images, labels without a class and classes without training images.

    Raises:
      UserError: naming the split, or the classes.
    """
    classes = len(dataset.class_names)
    for name, split in dataset.splits():
        if len(split) == 0:
            raise UserError(f"{dataset.name}: the {name} split holds no images")
        if split.labels.min() < 0 or split.labels.max() >= classes:
            raise UserError(
                f"{dataset.name}: the {name} split has labels {split.labels.min()}.."
                f"{split.labels.max()}, but there are {classes} class names"
            )
    counts = np.bincount(dataset.train.labels, minlength=classes)
    if missing := [n for n, c in zip(dataset.class_names, counts, strict=True) if c == 0]:
        raise UserError(
            f"{dataset.name}: the train split holds no image of {', '.join(missing[:20])}"
            f"{', ...' if len(missing) > 20 else ''}: add some, or remove the class"
        )
