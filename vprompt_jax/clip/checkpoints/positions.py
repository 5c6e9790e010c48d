"""Learned positions for another resolution than the checkpoint's."""

import numpy as np

from vprompt_jax.clip.config import CLIPConfig
from vprompt_jax.clip.preprocess import resize_matrix
from vprompt_jax.process.errors import UserError


def check_resolution(config: CLIPConfig, resolution: int) -> None:
    """Checks that a tower can take images of a resolution.

    Raises:
      UserError: if not; the message names the nearest resolutions that it can take.
    """
    step = config.downscale
    if resolution < step or resolution % step:
        below = max(resolution // step, 1) * step
        raise UserError(
            f"image_resolution={resolution}: this tower takes multiples of {step}; the nearest "
            f"are {below} and {below + step}"
        )


def interpolate(positions: np.ndarray, old: int, side: int) -> np.ndarray:
    """Resizes a grid of positions; those before it, of tokens without a place, stay as they are.

    Bicubic with a = -0.5 and antialiasing, which is what OpenCLIP does when it loads a checkpoint
    at another resolution.

    Args:
      positions: float [P + old^2, C].
      old: side of the grid they are for.
      side: of the new grid.

    Returns:
      [P + side^2, C], in the given dtype.
    """
    first = len(positions) - old * old
    matrix = resize_matrix(old, side)
    rest = positions[first:].astype(np.float32).reshape(old, old, -1)
    rest = np.einsum("ri,sj,ijc->rsc", matrix, matrix, rest, optimize=True)
    flat = rest.reshape(side * side, -1).astype(positions.dtype)
    return np.concatenate([positions[:first], flat])
