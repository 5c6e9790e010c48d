"""The form in which every source gives its data: labelled splits that read images on demand."""

import dataclasses
import hashlib
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from vprompt_jax.data.info import GENERAL_TEMPLATES, VP_TEMPLATE
from vprompt_jax.process.errors import UserError

# Indices [n] -> images uint8 [n, h, w, 3] of one size.
Fetch = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True, repr=False)
class Split:
    """A list of labelled images.

    Attributes:
      labels: int32 [N].
      fetch: reads images by their index in this split.
      keys: a name per example that is the same on every machine: the dataset's own, or else the
        SHA-256 of the stored image. It decides on which side of a cut the example falls.
      content: what `fetch` returns: "image", or "activation" (float [n, ...]) of a cached prefix.
      content_keys: a name per example for its stored content, equal for copies and for nothing
        else; None if that is unknown.
      describe: index -> the example's name in messages; None to name it by its index.
    """

    labels: np.ndarray
    fetch: Fetch
    keys: Sequence[str]
    content: Literal["image", "activation"] = "image"
    content_keys: Sequence[str] | None = None
    describe: Callable[[int], str] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        classes = len(np.unique(self.labels))
        return f"<Split: {len(self):,} images of {classes} classes>"

    def called(self, index: int, name: str) -> str:
        """The name of an example in messages, in this split of name `name`."""
        return f"{name} image {index}" if self.describe is None else self.describe(index)

    def take(self, indices: np.ndarray) -> "Split":
        """The examples at `indices`, in that order."""
        content_keys, describe = self.content_keys, self.describe
        return Split(
            self.labels[indices],
            lambda chosen: self.fetch(indices[chosen]),
            [self.keys[i] for i in indices],
            content=self.content,
            content_keys=None if content_keys is None else [content_keys[i] for i in indices],
            describe=None if describe is None else lambda i: describe(int(indices[i])),
        )

    def joined(self, other: "Split") -> "Split":
        """This split's examples followed by the other's; all images must have one size."""

        def fetch(chosen: np.ndarray) -> np.ndarray:
            is_own = chosen < len(self)
            parts = [(is_own, self, 0), (~is_own, other, len(self))]
            pieces = [(m, s.fetch(chosen[m] - start)) for m, s, start in parts if m.any()]
            images = np.empty((len(chosen), *pieces[0][1].shape[1:]), np.uint8)
            for mask, piece in pieces:
                images[mask] = piece
            return images

        labels = np.concatenate([self.labels, other.labels])
        content_keys = None
        if self.content_keys is not None and other.content_keys is not None:
            content_keys = [*self.content_keys, *other.content_keys]
        return Split(labels, fetch, [*self.keys, *other.keys], content_keys=content_keys)

    @property
    def digest(self) -> str:
        """SHA-256 over the sorted keys: equal for the same examples in any order."""
        return hashlib.sha256(encoded("\n".join(sorted(self.keys)))).hexdigest()


@dataclasses.dataclass(frozen=True, repr=False)
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
      notes: what the source found otherwise than one would expect, and how it took it.
      folder: where the splits' keys name the files that hold the images; None if keys name none.
      contents: what changes with the stored images, see `contents.of_files`; "" where the keys do.
      cut: splits that the source lacks and that were cut off train.
      split_file: name and SHA-256 of the list that dealt the splits; None if the source did.
    """

    name: str
    class_names: tuple[str, ...]
    train: Split
    val: Split | None
    test: Split
    template: str = VP_TEMPLATE
    ensemble: tuple[str, ...] = GENERAL_TEMPLATES
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    folder: Path | None = None
    contents: str = ""
    cut: tuple[str, ...] = ()
    split_file: tuple[str, str] | None = None

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {len(split):,}" for name, split in self.splits())
        return f"<Dataset {self.name}: {len(self.class_names)} classes; {sizes}>"

    def splits(self) -> Iterator[tuple[str, Split]]:
        """The splits that exist, with their names."""
        for name in ("train", "val", "test"):
            if (split := getattr(self, name)) is not None:
                yield name, split

    def with_splits(self, splits: Mapping[str, Split]) -> "Dataset":
        """A copy in which `splits`, by name, take the place of the splits of those names."""
        return dataclasses.replace(
            self,
            train=splits.get("train", self.train),
            val=splits.get("val", self.val),
            test=splits.get("test", self.test),
        )

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits that change with any key, label, class name or split."""
        digest = hashlib.sha256(encoded("\n".join(self.class_names)))
        for name, split in self.splits():
            rows = sorted(
                f"{k}\t{label}" for k, label in zip(split.keys, split.labels, strict=True)
            )
            digest.update(encoded("\n".join([f"\n{name}", *rows])))
        return digest.hexdigest()[:16]

    @property
    def identity(self) -> str:
        """SHA-256 of the class names, of every split's keys and labels in their order, and of
        `contents`."""
        digest = hashlib.sha256()

        def add(lines: Iterable[str]) -> None:
            for line in lines:
                digest.update(encoded(line) + b"\n")

        add(self.class_names)
        add([self.contents] if self.contents else [])
        for name in ("train", "val", "test"):
            split = getattr(self, name)
            add([f"{name} {0 if split is None else len(split)}"])
            if split is not None:
                add(split.keys)
                digest.update(np.asarray(split.labels, np.int32).data)
        return digest.hexdigest()


def encoded(text: str) -> bytes:
    """Encodes text as UTF-8, including the surrogates of file names that are not UTF-8."""
    return text.encode("utf-8", "surrogatepass")


def hash_keys(images: np.ndarray) -> list[str]:
    """SHA-256 of each image's pixels, as keys of images without names."""
    return [hashlib.sha256(np.ascontiguousarray(image).data).hexdigest() for image in images]


def split_of_arrays(images: np.ndarray, labels: np.ndarray) -> Split:
    """Makes a split in memory from images uint8 [N, h, w, 3] and integer labels [N]."""
    keys = hash_keys(images)
    return Split(labels.astype(np.int32), lambda indices: images[indices], keys, content_keys=keys)


def check(dataset: Dataset) -> None:
    """Refuses a dataset of one class, with an empty split, or whose labels and classes differ.

    Raises:
      UserError: naming the split or the classes.
    """
    classes = len(dataset.class_names)
    if classes < 2:
        raise UserError(
            f"{dataset.name} has one class, {', '.join(dataset.class_names)!r}, and no other to "
            "tell it from: give each class a name of its own (in a folder: a folder of its own)"
        )
    for name, split in dataset.splits():
        if len(split) == 0:
            raise UserError(f"{dataset.name}: the {name} split holds no images{_way_out(name)}")
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


def _way_out(name: str) -> str:
    """What to do about an empty split; a cut may be empty, as it leaves each class one image."""
    if name == "train":
        return ""
    without = ", or train without one (config.protocol=paper)" if name == "val" else ""
    return (
        f". It is cut from train where the source has none, which takes two different images of a "
        f"class: add images, or a {name} split of your own{without}"
    )


def as_text(name: str) -> str:
    """A class name as it reads in a prompt: in lower case, `_` and `-` as spaces."""
    text = unicodedata.normalize("NFC", name).lower().replace("_", " ").replace("-", " ")
    return " ".join(text.split())


def check_names(dataset: Dataset) -> None:
    """Refuses different class names that become the same text in a prompt.

    Raises:
      UserError: naming such classes.
    """
    by_text: dict[str, list[str]] = {}
    for name in dataset.class_names:
        by_text.setdefault(as_text(name), []).append(name)
    if same := [names for names in by_text.values() if len(names) > 1]:
        listed = "\n  ".join(" = ".join(map(repr, names)) for names in same[:20])
        raise UserError(
            f"{dataset.name}: as text, these classes have the same name: join them, or name them "
            f"apart ('capital A')\n  {listed}"
        )
