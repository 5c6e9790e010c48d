"""Which image files to label, and how they are read in batches."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from vprompt_jax.data import images as images_lib
from vprompt_jax.process.errors import UserError

_LISTED = 20  # offenders named in one message


def find_images(arguments: Sequence[str], listing: Iterable[str]) -> list[Path]:
    """The image files that arguments stand for.

    Args:
      arguments: files; folders, searched at all depths; "-" for the lines of `listing`.
      listing: one path per line.

    Raises:
      UserError: if a file is missing, or there are no images at all; all offenders are listed.
    """
    paths: list[Path] = []
    missing = []
    for argument in arguments:
        names = [line.strip() for line in listing] if argument == "-" else [argument]
        for path in (Path(name) for name in names if name):
            if path.is_dir():
                paths += images_lib.images_in(path)
            elif path.is_file():
                paths.append(path)
            else:
                missing.append(str(path))
    if missing:
        more = f"\n  and {len(missing) - _LISTED} more" if len(missing) > _LISTED else ""
        listed = "\n  ".join(missing[:_LISTED])
        raise UserError(f"no such image or folder:\n  {listed}{more}")
    if not paths:
        raise UserError(f"no images in {', '.join(arguments)}")
    return paths


def batches(
    paths: Sequence[Path], size: int, resolution: int
) -> Iterator[tuple[Sequence[Path], np.ndarray]]:
    """Reads images in batches of one shape, the last one filled up with copies.

    Yields:
      Paths, and uint8 [size, R, R, 3], whose first len(paths) images are theirs.

    Raises:
      UserError: naming an image that cannot be decoded.
    """
    size = min(size, len(paths))
    for start in range(0, len(paths), size):
        chunk = paths[start : start + size]
        images = [images_lib.decode(path, resolution) for path in chunk]
        images += [images[0]] * (size - len(chunk))
        yield chunk, np.stack(images)
