"""Turns stored images (files, encoded bytes, arrays) into splits of uint8 images of one size."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import UnidentifiedImageError

from vprompt_jax.clip.config import Resize
from vprompt_jax.clip.pictures import Stored, decode, decoded_size
from vprompt_jax.clip.preprocess import resize_and_crop
from vprompt_jax.data.dataset import Split
from vprompt_jax.process.errors import UserError
from vprompt_jax.process.printable import printable, some_of

_Seen = TypeVar("_Seen")  # what a look at an image gives

# Splits of up to this size are decoded once and kept; larger ones are decoded as needed.
MEMORY_LIMIT = 2 * 2**30  # bytes per split
_CHUNK = 1024  # images decoded at a time


class BadImages(UserError):
    """Some images cannot be used.

    Attributes:
      listed: one line for each of them, with the reason.
    """

    def __init__(self, lines: Sequence[str]):
        self.listed = tuple(lines)
        what = "files are not readable images" if len(lines) > 1 else "file is not a readable image"
        super().__init__(
            f"{len(lines)} {what} of a class: repair, move or remove, or leave out with "
            f"config.data.on_bad_image=skip\n  {some_of(lines)}"
        )


@dataclasses.dataclass(frozen=True)
class Records:
    """Labelled images of one split, not yet decoded.

    Attributes:
      labels: integers [N].
      keys: names of the examples; see `dataset.Split`.
      read: index -> a file, an encoded image or uint8 [h, w, 1 or 3].
      describe: index -> the image's name in messages.
      content_keys: names of the stored contents; see `dataset.Split`.
    """

    labels: Sequence[int]
    keys: Sequence[str]
    read: Callable[[int], Stored]
    describe: Callable[[int], str]
    content_keys: Sequence[str] | None = None


def _pixels(stored: Stored, side: int | None, resize: Resize) -> np.ndarray:
    """Decodes an image to uint8 [side, side, 3], or to its stored size if `side` is None."""
    if side is None:
        return np.asarray(decode(stored).convert("RGB"))
    return resize_and_crop(stored, side, mode=resize)


def _check(stored: Stored) -> None:
    """Decodes an image only to raise what decoding raises."""
    decode(stored)


def reason(error: Exception) -> str:
    """Says on one line why an image cannot be used."""
    if isinstance(error, UnidentifiedImageError):
        return "empty, or in no format of pictures known here"
    kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
    return kind + " ".join(printable(line) for line in str(error).splitlines())


def read(path: Path, side: int, resize: Resize = "shortest") -> np.ndarray:
    """Reads one image, resized and cropped: uint8 [side, side, 3].

    Raises:
      BadImages: if it cannot be decoded.
    """
    try:
        return _pixels(path, side, resize)
    except Exception as error:  # Pillow's decoders raise many kinds
        raise BadImages([f"{printable(path)} ({reason(error)})"]) from error


def splits(
    records: dict[str, Records],
    resolution: int,
    workers: int,
    on_bad: str,
    found_bad: Sequence[str],
    resize: Resize,
) -> dict[str, Split]:
    """Makes splits that decode their images on demand, after reading every image's header.

    Small images of one size keep their size, since the device resizes them. Others are resized and
    cropped to the tower's resolution while they are decoded.

    Args:
      records: the images of each split.
      resolution: side of the tower's input, in pixels.
      workers: number of threads that read.
      on_bad: "stop", or "skip" to leave unreadable images to `decoded`.
      found_bad: lines on what the source itself has found, for the same message.
      resize: how an image becomes square; the tower's `config.resize`.

    Raises:
      BadImages: under "stop", listing the images that cannot be read.
    """

    def attempt(look: Callable[[Stored], _Seen], record: tuple[Records, int]) -> _Seen | str:
        part, i = record
        try:
            return look(part.read(i))
        except Exception as error:  # Pillow's decoders raise many kinds
            return f"{part.describe(i)} ({reason(error)})"

    everything = [(part, i) for part in records.values() for i in range(len(part.labels))]
    with ThreadPoolExecutor(workers) as pool:
        size = functools.partial(decoded_size, exact_below=resolution)
        sizes = list(pool.map(lambda record: attempt(size, record), everything))
        readable_sizes = {s for s in sizes if not isinstance(s, str)}
        if on_bad == "stop" and (found_bad or len(readable_sizes) < len(set(sizes))):
            # The run stops anyway: decode the images, too, and list everything at once.
            lines = pool.map(lambda record: attempt(_check, record), everything)
            raise BadImages([*found_bad, *(line for line in lines if line)])
    keep_size = len(readable_sizes) == 1 and max(next(iter(readable_sizes))) <= resolution
    side = None if keep_size else resolution
    return {name: lazy_split(part, side, workers, resize) for name, part in records.items()}


def lazy_split(records: Records, side: int | None, workers: int, resize: Resize) -> Split:
    """Makes a split that decodes its images anew each time they are fetched.

    Args:
      records: the images.
      side: side of the fetched images, in pixels; None to keep their stored, common size.
      workers: number of threads that decode.
      resize: as in `splits`.
    """
    pool = ThreadPoolExecutor(workers)

    def image(i: int) -> np.ndarray:
        try:
            return _pixels(records.read(i), side, resize)
        except Exception as error:  # Pillow's decoders raise many kinds
            raise BadImages([f"{records.describe(i)} ({reason(error)})"]) from error

    def fetch(indices: np.ndarray) -> np.ndarray:
        return np.stack(list(pool.map(image, indices.tolist())))

    labels = np.asarray(records.labels, np.int32)
    return Split(
        labels,
        fetch,
        records.keys,
        content_keys=records.content_keys,
        describe=records.describe,
    )


def decoded(split: Split, on_bad: str) -> tuple[Split, tuple[str, ...]]:
    """Decodes a split that fits in memory, which reveals damaged images before training.

    Under "skip", a larger split is decoded once as well, to find what has to be left out.

    Returns:
      The split without skipped images, and one line for each skipped image.

    Raises:
      BadImages: listing the damaged images, under "stop".
    """
    count = len(split)
    good = np.ones(count, bool)
    offenders: list[str] = []
    images = None
    first = None

    def one_by_one(indices: np.ndarray) -> np.ndarray:
        kept = []
        for i in indices:
            try:
                kept.append(split.fetch(np.array([i]))[0])
            except BadImages as error:
                offenders.extend(error.listed)
                good[i] = False
        return np.stack(kept) if kept else np.zeros((0, 1, 1, 3), np.uint8)

    for start in range(0, count, _CHUNK):
        indices = np.arange(start, min(start + _CHUNK, count))
        try:
            part = split.fetch(indices)
        except BadImages:
            part = one_by_one(indices)
        if first is None and len(part):
            first = part[0]
            if first.nbytes * count <= MEMORY_LIMIT:
                images = np.empty((count, *first.shape), np.uint8)
            elif on_bad == "stop":
                break
        if images is not None:
            images[indices[good[indices]]] = part
    if offenders and on_bad == "stop":
        raise BadImages(offenders)
    whole = split
    if images is not None:
        whole = dataclasses.replace(split, fetch=lambda chosen: images[chosen])
    return (whole if good.all() else whole.take(np.flatnonzero(good))), tuple(offenders)
