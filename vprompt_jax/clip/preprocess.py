"""CLIP's image preprocessing on host and device: bicubic resize, centre crop, normalisation."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from vprompt_jax.clip.config import CLIP_MEAN, CLIP_STD
from vprompt_jax.clip.pictures import Stored, decode

MEAN = np.array(CLIP_MEAN, np.float32)
STD = np.array(CLIP_STD, np.float32)


def resized_size(height: int, width: int, resolution: int) -> tuple[int, int]:
    """Height and width after the short side is resized to `resolution`, as torchvision does it."""
    if height <= width:
        return resolution, max(resolution, int(resolution * width / height))
    return max(resolution, int(resolution * height / width)), resolution


def _crop_start(size: int, resolution: int) -> int:
    return round((size - resolution) / 2)  # torchvision's CenterCrop rounds half to even, too


@functools.cache
def resize_matrix(source: int, target: int) -> np.ndarray:
    """Bicubic resampling along one axis as a matrix [target, source], as Pillow computes it.

    Keys' kernel with a = -0.5; when shrinking, it is widened by the ratio (antialiasing).
    """
    scale = source / target
    support_scale = max(scale, 1.0)
    support = 2.0 * support_scale
    matrix = np.zeros((target, source))
    for i in range(target):
        centre = (i + 0.5) * scale
        low = max(int(centre - support + 0.5), 0)
        high = min(int(centre + support + 0.5), source)
        x = np.abs((np.arange(low, high) + 0.5 - centre) / support_scale)
        near = (1.5 * x - 2.5) * x * x + 1.0
        far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
        weights = np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))
        matrix[i, low:high] = weights / weights.sum()
    return matrix.astype(np.float32)


def normalize(
    pixels: jax.Array, mean: Sequence[float] = CLIP_MEAN, std: Sequence[float] = CLIP_STD
) -> jax.Array:
    """Grey levels 0..255 [..., 3] -> normalised float32; mean and std refer to pixels in [0, 1]."""
    centre, spread = np.asarray(mean, np.float32), np.asarray(std, np.float32)
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
) -> jax.Array:
    """Resizes, crops and normalises images of one size inside a compiled function.

    It agrees with Pillow's bicubic resize to one grey level: like Pillow, it resizes along the
    width first, and rounds to whole grey levels after each pass.

    Args:
      images: uint8 [B, h, w, 3].
      resolution: side R of the result.
      mean: mean of each channel, of pixels in [0, 1]; the tower's `config.mean`.
      std: standard deviation of each channel, likewise; the tower's `config.std`.

    Returns:
      float32 [B, R, R, 3], normalised.
    """
    height, width = images.shape[1:3]
    new_height, new_width = resized_size(height, width, resolution)
    x = images.astype(jnp.float32)
    precision = jax.lax.Precision.HIGHEST  # grey levels need more than bfloat16's eight bits
    if new_width != width:
        columns = _axis_matrix(width, new_width, resolution)
        x = jnp.einsum("bhwc,rw->bhrc", x, columns, precision=precision)
        x = jnp.clip(jnp.round(x), 0.0, 255.0)
    else:
        start = _crop_start(width, resolution)
        x = x[:, :, start : start + resolution]
    if new_height != height:
        rows = _axis_matrix(height, new_height, resolution)
        x = jnp.einsum("bhwc,rh->brwc", x, rows, precision=precision)
        x = jnp.clip(jnp.round(x), 0.0, 255.0)
    else:
        start = _crop_start(height, resolution)
        x = x[:, start : start + resolution]
    return normalize(x, mean, std)


def _axis_matrix(source: int, target: int, resolution: int) -> np.ndarray:
    """Resizes and crops one axis in one matrix [resolution, source]."""
    start = _crop_start(target, resolution)
    return resize_matrix(source, target)[start : start + resolution]


def resize_and_crop(image: Stored, resolution: int) -> np.ndarray:
    """Resizes the short side and crops the centre with Pillow, on the host.

    Args:
      image: anything `pictures.decode` reads: a PIL image of any mode, uint8 [h, w, 3], a file.
      resolution: side R of the result.

    Returns:
      uint8 [R, R, 3].
    """
    picture = decode(image)
    height, width = resized_size(picture.height, picture.width, resolution)
    picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    left, top = _crop_start(width, resolution), _crop_start(height, resolution)
    picture = picture.crop((left, top, left + resolution, top + resolution))
    return np.asarray(picture.convert("RGB"))


def preprocess(
    image: Stored,
    resolution: int,
    mean: Sequence[float] = CLIP_MEAN,
    std: Sequence[float] = CLIP_STD,
) -> np.ndarray:
    """Prepares one image for the tower: PIL, uint8 [h, w, 3] or a file -> float32 [R, R, 3]."""
    pixels = resize_and_crop(image, resolution).astype(np.float32)
    return (pixels / 255.0 - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)
