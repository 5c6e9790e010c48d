"""What a user calls images (arrays, PIL images, paths, lists of these) as one uint8 batch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vprompt_jax.clip.config import Resize
from vprompt_jax.clip.preprocess import grey_levels, resize_and_crop
from vprompt_jax.data import images as images_lib
from vprompt_jax.process.errors import UserError

# One image, or several of these in a list or tuple, or uint8 [B, h, w, 3].
Images = Any

_ACCEPTED = (
    "give uint8 [B, h, w, 3] or [h, w, 3] (grey levels 0..255, RGB), a PIL image, a path, or a "
    "list of these"
)


def batch_of(
    images: Images, side: int, *, exact: bool = False, resize: Resize = "shortest"
) -> np.ndarray:
    """Images as one batch, decoded and resized by the functions that training uses.

    Args:
      images: uint8 [B, h, w, 3] of any one size, or a list or tuple of single images: uint8
        [h, w, 3], PIL images of any mode, paths; of different sizes, if need be. One channel
        stands for three equal ones. A single image is a batch of one.
      side: R, to which images are resized and cropped unless they are arrays of one size.
      exact: resize those, too.
      resize: how an image becomes square; the tower's `config.resize`.

    Returns:
      uint8 [B, h, w, 3], for arrays of one size (which the model resizes), else [B, R, R, 3];
      [0, R, R, 3] for no images.

    Raises:
      UserError: if the images are anything else, or a file cannot be decoded.
    """
    if isinstance(images, list | tuple):
        return _batch_of_list(images, side, exact, resize)
    if isinstance(images, str | Path | Image.Image):
        return _batch_of_list([images], side, exact, resize)
    array = np.asarray(images)
    if array.ndim == 4 and len(array) == 0 and array.dtype == np.uint8:
        return _none(side)
    try:
        pixels = grey_levels(array[None] if array.ndim == 3 else array, rank=4)
    except ValueError as error:
        raise UserError(f"the images are {error}: {_ACCEPTED}") from error
    if exact and pixels.shape[1:3] != (side, side):
        return np.stack([resize_and_crop(image, side, mode=resize) for image in pixels])
    return pixels


def _none(side: int) -> np.ndarray:
    return np.zeros((0, side, side, 3), np.uint8)


def _batch_of_list(images: Sequence[Images], side: int, exact: bool, resize: Resize) -> np.ndarray:
    single = [_single(number, image) for number, image in enumerate(images)]
    if not single:
        return _none(side)
    arrays = [image for image in single if isinstance(image, np.ndarray)]
    sizes = {array.shape[:2] for array in arrays}
    if len(arrays) == len(single) and len(sizes) == 1 and (not exact or sizes == {(side, side)}):
        return np.stack(arrays)
    return np.stack([
        images_lib.read(image, side, resize)
        if isinstance(image, Path)
        else resize_and_crop(image, side, mode=resize)
        for image in single
    ])  # fmt: skip


def _single(number: int, image: Images) -> np.ndarray | Image.Image | Path:
    """One image of a list: checked pixels [h, w, 3], a PIL image, or a path."""
    if isinstance(image, Image.Image | Path):
        return image
    if isinstance(image, str):
        return Path(image)
    try:
        return grey_levels(np.asarray(image), rank=3)
    except ValueError as error:
        raise UserError(f"image {number} of the list is {error}: {_ACCEPTED}") from error
