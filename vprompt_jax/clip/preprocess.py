"""The towers' image preprocessing on host and device: resize, centre crop, normalisation."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from vprompt_jax.clip.config import CLIP_MEAN, CLIP_STD, Resize
from vprompt_jax.clip.pictures import Stored, decode
from vprompt_jax.process.errors import UserError

MEAN = np.array(CLIP_MEAN, np.float32)
STD = np.array(CLIP_STD, np.float32)


def resized_size(
    height: int, width: int, resolution: int, mode: Resize = "shortest"
) -> tuple[int, int]:
    """Height and width before the crop; `mode` is `CLIPConfig.resize`.

    "shortest": the short side becomes `resolution`, the other follows as torchvision rounds it;
    "squash", "squash_bilinear": both become `resolution`.
    """
    if mode in ("squash", "squash_bilinear"):
        return resolution, resolution
    if mode != "shortest":
        raise ValueError(f"mode must be one of {', '.join(get_args(Resize))}, got {mode!r}")
    if height <= width:
        return resolution, max(resolution, int(resolution * width / height))
    return max(resolution, int(resolution * height / width)), resolution


def _crop_start(size: int, resolution: int) -> int:
    return round((size - resolution) / 2)  # torchvision's CenterCrop rounds half to even, too


@functools.cache
def resize_matrix(source: int, target: int, bilinear: bool = False) -> np.ndarray:
    """Resampling along one axis as a matrix [target, source], as Pillow computes it.

    Bicubic (Keys' kernel with a = -0.5) or bilinear; when shrinking, the kernel is widened by the
    ratio (antialiasing).
    """
    scale = source / target
    support_scale = max(scale, 1.0)
    support = (1.0 if bilinear else 2.0) * support_scale
    matrix = np.zeros((target, source))
    for i in range(target):
        centre = (i + 0.5) * scale
        low = max(int(centre - support + 0.5), 0)
        high = min(int(centre + support + 0.5), source)
        x = np.abs((np.arange(low, high) + 0.5 - centre) / support_scale)
        near = (1.5 * x - 2.5) * x * x + 1.0
        far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
        weights = np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))
        if bilinear:
            weights = np.maximum(1.0 - x, 0.0)
        matrix[i, low:high] = weights / weights.sum()
    return matrix.astype(np.float32)


def normalize(
    pixels: jax.Array, mean: Sequence[float] = CLIP_MEAN, std: Sequence[float] = CLIP_STD
) -> jax.Array:
    """Grey levels 0..255 [..., 3] -> normalised float32; mean and std are of pixels in [0, 1]."""
    shape = (1,) * (pixels.ndim - 1) + (-1,)
    centre, spread = (np.asarray(v, np.float32).reshape(shape) for v in (mean, std))
    return pixels.astype(jnp.float32) * (1.0 / (255.0 * spread)) - centre / spread


def on_screen(
    x: np.ndarray, mean: Sequence[float] = CLIP_MEAN, std: Sequence[float] = CLIP_STD
) -> np.ndarray:
    """Undoes `normalize` for display: normalised pixels [..., 3] -> values clipped to 0..1."""
    return np.clip(np.asarray(x) * np.asarray(std) + np.asarray(mean), 0, 1)


def preprocess_batch(
    images: jax.Array,
    resolution: int,
    mean: Sequence[float] = CLIP_MEAN,
    std: Sequence[float] = CLIP_STD,
    *,
    mode: Resize = "shortest",
) -> jax.Array:
    """Resizes, crops and normalises images of one size inside a compiled function.

    Agrees with Pillow to one grey level: like it, rows are resized first, and each
    pass rounds to whole grey levels. (From version 13 on Pillow may begin with the columns where
    they shrink more; squashed images can then differ at edges that a pass clips.)

    Args:
      images: uint8 [B, h, w, 3].
      resolution: side R of the result.
      mean: per channel, of pixels in [0, 1]; `config.mean` of the tower.
      std: likewise.
      mode: `config.resize` of the tower.

    Returns:
      float32 [B, R, R, 3], normalised.
    """
    height, width = images.shape[1:3]
    new_height, new_width = resized_size(height, width, resolution, mode)
    x = images.astype(jnp.float32)
    bilinear = mode == "squash_bilinear"
    precision = jax.lax.Precision.HIGHEST  # grey levels need more than bfloat16's eight bits
    if new_width != width:
        columns = _axis_matrix(width, new_width, resolution, bilinear)
        x = jnp.einsum("bhwc,rw->bhrc", x, columns, precision=precision)
        x = jnp.clip(jnp.round(x), 0.0, 255.0)
    else:
        start = _crop_start(width, resolution)
        x = x[:, :, start : start + resolution]
    if new_height != height:
        rows = _axis_matrix(height, new_height, resolution, bilinear)
        x = jnp.einsum("bhwc,rh->brwc", x, rows, precision=precision)
        x = jnp.clip(jnp.round(x), 0.0, 255.0)
    else:
        start = _crop_start(height, resolution)
        x = x[:, start : start + resolution]
    return normalize(x, mean, std)


def _axis_matrix(source: int, target: int, resolution: int, bilinear: bool) -> np.ndarray:
    """Resizes and crops one axis in one matrix [resolution, source]."""
    start = _crop_start(target, resolution)
    return resize_matrix(source, target, bilinear)[start : start + resolution]


def grey_levels(array: np.ndarray, rank: int) -> np.ndarray:
    """Checks an array of images, which is taken for no other than it is: floats are not scaled.

    Args:
      array: uint8 [..., h, w, 3] or [..., h, w, 1].
      rank: the number of axes that it must have.

    Returns:
      The same with three channels.

    Raises:
      ValueError: saying what the array is, in the words "uint8 [4, 4]", if it is anything else.
    """
    good = array.dtype == np.uint8 and array.ndim == rank and array.shape[-1] in (1, 3)
    if not good or 0 in array.shape:
        raise ValueError(f"{array.dtype} {list(array.shape)}")
    return np.broadcast_to(array, (*array.shape[:-1], 3))


def resize_and_crop(image: Stored, resolution: int, *, mode: Resize = "shortest") -> np.ndarray:
    """Makes an image square with Pillow, on the host.

    Args:
      image: anything `pictures.decode` reads: a PIL image of any mode, uint8 [h, w, 3], a file.
      resolution: side R of the result.
      mode: `config.resize` of the tower.

    Returns:
      uint8 [R, R, 3].
    """
    picture = decode(image)
    height, width = resized_size(picture.height, picture.width, resolution, mode)
    bilinear = mode == "squash_bilinear"
    kernel = Image.Resampling.BILINEAR if bilinear else Image.Resampling.BICUBIC
    picture = picture.resize((width, height), kernel)
    left, top = _crop_start(width, resolution), _crop_start(height, resolution)
    picture = picture.crop((left, top, left + resolution, top + resolution))
    return np.asarray(picture.convert("RGB"))


def preprocess(
    image: Stored,
    resolution: int,
    mean: Sequence[float] = CLIP_MEAN,
    std: Sequence[float] = CLIP_STD,
    *,
    mode: Resize = "shortest",
) -> np.ndarray:
    """One image as the tower takes it.

    Args:
      image: a PIL image of any mode, uint8 [h, w, 3] (or one channel), or an image file.
      resolution: side R of the tower's input.
      mean: mean of each channel of pixels in [0, 1]; `config.mean` of the tower.
      std: their standard deviation.
      mode: `config.resize` of the tower.

    Returns:
      float32 [R, R, 3], normalised.

    Raises:
      UserError: if an array is anything else: floats, several images.
    """
    if not isinstance(image, Image.Image | str | Path | bytes):
        try:
            image = grey_levels(np.asarray(image), rank=3)
        except ValueError as error:
            raise UserError(
                f"the image is {error}: give a PIL image, or one image as uint8 [h, w, 3] (grey "
                "levels 0..255, RGB)"
            ) from error
    pixels = resize_and_crop(image, resolution, mode=mode).astype(np.float32)
    return (pixels / 255.0 - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)
