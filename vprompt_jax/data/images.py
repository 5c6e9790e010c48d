"""From stored images (files, encoded bytes or arrays) to splits of uint8 images of one size."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import UnidentifiedImageError

from vprompt_jax.clip.pictures import Stored, decode, decoded_size
from vprompt_jax.clip.preprocess import resize_and_crop
from vprompt_jax.data.dataset import Split
from vprompt_jax.process.errors import UserError
from vprompt_jax.process.printable import printable

_Seen = TypeVar("_Seen")  # what a look at an image gives

# Splits up to this size are decoded once and kept; larger ones are decoded as they are needed.
MEMORY_LIMIT = 2 * 2**30  # bytes per split
_CHUNK = 1024  # images decoded at a time
_LISTED = 20  # offenders shown in a message


class BadImages(UserError):
    """Images that cannot be used.

    Attributes:
      listed: which, and why.
    """

    def __init__(self, listed: Sequence[str]):
        self.listed = tuple(listed)
        what = (
            "files are not readable images" if len(listed) > 1 else "file is not a readable image"
        )
        rest = f"\n  and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
        super().__init__(
            f"{len(listed)} {what} of a class: repair, move or remove, or leave out with "
            "config.data.on_bad_image=skip\n  " + "\n  ".join(listed[:_LISTED]) + rest
        )


@dataclasses.dataclass(frozen=True)
class Records:
    """Labelled images of one split, not yet decoded.

    Attributes:
      labels: integers [N].
      keys: see `dataset.Split`.
      read: index -> a file, an encoded image or uint8 [h, w, 1 or 3].
      describe: index -> what messages call the image.
      content_keys: see `dataset.Split`.
    """

    labels: Sequence[int]
    keys: Sequence[str]
    read: Callable[[int], Stored]
    describe: Callable[[int], str]
    content_keys: Sequence[str] | None = None


def _pixels(stored: Stored, side: int | None) -> np.ndarray:
    """uint8 [side, side, 3], or at its stored size if `side` is None."""
    if side is None:
        return np.asarray(decode(stored).convert("RGB"))
    return resize_and_crop(stored, side)


def _check(stored: Stored) -> None:
    """Decodes an image and forgets it."""
    decode(stored)


def reason(error: Exception) -> str:
    """Why an image cannot be used, on one line."""
    if isinstance(error, UnidentifiedImageError):
        return "empty, or in no format of pictures known here"
    kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
    return kind + " ".join(printable(line) for line in str(error).splitlines())


def read(path: Path, side: int) -> np.ndarray:
    """Reads one image, resized and cropped: uint8 [side, side, 3].

    Raises:
      BadImages: if it cannot be decoded.
    """
    try:
        return _pixels(path, side)
    except Exception as error:  # Pillow's decoders raise many kinds
        raise BadImages([f"{printable(path)} ({reason(error)})"]) from error


def splits(
    records: dict[str, Records],
    resolution: int,
    workers: int,
    on_bad: str,
    found_bad: Sequence[str] = (),
) -> dict[str, Split]:
    """Splits that decode their images when asked, after a look at every image's header.

    Small images of one size keep it (they are resized on the device); others are resized and
    cropped to the tower's resolution while they are decoded.

    Args:
      records: by split.
      resolution: of the tower.
      workers: threads that read.
      on_bad: "stop", or "skip" to leave unreadable images to `decoded`.
      found_bad: what the source itself found, for the same message.

    Raises:
      BadImages: listing the images that cannot be read, unless they are to be skipped.
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
        found = {s for s in sizes if not isinstance(s, str)}
        if on_bad == "stop" and (found_bad or len(found) < len(set(sizes))):
            # The run stops anyway: look inside the images, too, and list everything at once.
            looked = pool.map(lambda record: attempt(_check, record), everything)
            raise BadImages([*found_bad, *(line for line in looked if line)])
    stored = len(found) == 1 and max(next(iter(found))) <= resolution
    side = None if stored else resolution
    return {name: lazy_split(part, side, workers) for name, part in records.items()}


def lazy_split(records: Records, side: int | None, workers: int) -> Split:
    """A split that decodes its images, in `workers` threads, each time they are asked for.

    Args:
      records: the images.
      side: of the images it gives; None for their stored, common size.
      workers: threads.
    """
    pool = ThreadPoolExecutor(workers)

    def image(i: int) -> np.ndarray:
        try:
            return _pixels(records.read(i), side)
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
    """Decodes a split that fits in memory, so that a damaged image shows before training.

    Under "skip" a larger split is decoded once as well, to find what has to be left out.

    Returns:
      The split, without what was skipped, and a line on each image that was.

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
