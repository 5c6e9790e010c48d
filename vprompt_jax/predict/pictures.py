"""Finds the image files to label, and reads them in batches."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from vprompt_jax.clip.config import Resize
from vprompt_jax.clip.pictures import decoded_size
from vprompt_jax.data import listing
from vprompt_jax.data.images import BadImages, read, reason
from vprompt_jax.process.errors import UserError
from vprompt_jax.process.printable import printable, some_of

_WORKERS = 4  # threads that read headers


def find_images(arguments: Sequence[str], lines: Iterable[str]) -> tuple[list[Path], list[str]]:
    """Finds the image files that arguments stand for.

    Args:
      arguments: files; folders, which are searched at all depths as a class's folder is in training
        (hidden names do not count); "-" for the paths in `lines`.
      lines: one path each.

    Returns:
      The files; and one line for everything else in the folders, with the reason.

    Raises:
      UserError: if a file is missing, a folder cannot be read, or there are no images at all; all
        offenders are listed.
    """
    paths: list[Path] = []
    others: list[str] = []
    missing = []
    for argument in arguments:
        names = [line.rstrip("\r\n") for line in lines] if argument == "-" else [argument]
        for path in (Path(name) for name in names if name.strip()):
            if path.is_dir():
                try:
                    pictures, rest = listing.pictures_below(path)
                except OSError as error:
                    raise listing.unreadable(error) from error
                paths += pictures
                others += rest
            elif path.is_file():
                paths.append(path)
            else:
                missing.append(printable(path))
    if missing:
        raise UserError(f"no such image or folder:\n  {some_of(missing)}")
    if not paths:
        where = f"no images in {', '.join(map(printable, arguments))}"
        raise UserError(f"{where}, only\n  {some_of(others)}" if others else where)
    return paths, others


def readable(paths: Sequence[Path], on_bad: str) -> tuple[list[Path], list[str]]:
    """Reads every file's header, so that most faults show before the first label.

    Args:
      paths: the files.
      on_bad: "stop" or "skip" at files that are no images.

    Returns:
      The files whose headers are those of images; and one line for every other file.

    Raises:
      UserError: listing the other files, under "stop" or if no image is left.
    """

    def fault(path: Path) -> str | None:
        try:
            decoded_size(path, 0)
        except Exception as error:  # Pillow's decoders raise many kinds
            return f"{printable(path)} ({reason(error)})"
        return None

    with ThreadPoolExecutor(_WORKERS) as pool:
        faults = list(pool.map(fault, paths))
    bad = [line for line in faults if line]
    if bad and (on_bad == "stop" or len(bad) == len(paths)):
        raise _cannot_decode(bad)
    return [path for path, line in zip(paths, faults, strict=True) if not line], bad


def batches(
    paths: Sequence[Path],
    size: int,
    resolution: int,
    on_bad: str,
    skipped: list[str],
    resize: Resize,
) -> Iterator[tuple[list[Path], np.ndarray]]:
    """Reads images in batches of one shape; copies fill up batches with too few images.

    Args:
      paths: the files.
      size: images per batch.
      resolution: side R of the tower's input, in pixels.
      on_bad: "stop" or "skip" at images that cannot be decoded.
      skipped: gets one line for each of those.
      resize: the tower's `config.resize`.

    Yields:
      Paths, and uint8 [size, R, R, 3], whose first len(paths) images are theirs.

    Raises:
      UserError: naming the images that cannot be decoded, under "stop" or if no image is left.
    """
    size = min(size, len(paths))
    labelled = False
    for start in range(0, len(paths), size):
        chunk: list[Path] = []
        images: list[np.ndarray] = []
        bad: list[str] = []
        for path in paths[start : start + size]:
            try:
                images.append(read(path, resolution, resize))
                chunk.append(path)
            except BadImages as error:
                bad += error.listed
        if bad and on_bad == "stop":
            raise _cannot_decode(bad)
        skipped += bad
        if chunk:
            labelled = True
            yield chunk, np.stack(images + [images[0]] * (size - len(chunk)))
    if not labelled:
        raise _cannot_decode(skipped)


def _cannot_decode(bad: list[str]) -> UserError:
    return UserError(
        "cannot decode these files: repair or remove them, or leave them out with --on_bad_image "
        f"skip\n  {some_of(bad)}"
    )
