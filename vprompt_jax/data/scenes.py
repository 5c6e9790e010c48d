"""Paints small colour scenes: a shape (a glyph, a handwritten digit) on a random background."""

import numpy as np
from PIL import Image

SIDE = 32  # pixels


def _background(rng: np.random.Generator) -> np.ndarray:
    """Draws a plain, shaded or cloudy background: float32 [SIDE, SIDE, 3] in 0..1."""
    base = rng.uniform(0, 1, 3)
    cells = rng.choice([1, 2, 3, 6])
    if cells == 1:
        return np.broadcast_to(base, (SIDE, SIDE, 3)).astype(np.float32)
    spread = rng.uniform(0.05, 0.2)
    grid = np.clip(base + rng.uniform(-spread, spread, (cells, cells, 3)), 0, 1)
    image = Image.fromarray((grid * 255).astype(np.uint8))
    image = image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return np.asarray(image, np.float32) / 255.0


def paint(shape: np.ndarray, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Paints a shape in a random colour at a random place on a random background.

    Args:
      shape: coverage in 0..1, float [h, w].
      size: width and height of the painted shape in pixels, at most SIDE.
      rng: draws the colours and the place.

    Returns:
      uint8 [SIDE, SIDE, 3].
    """
    background = _background(rng)
    width, height = size
    mask = Image.fromarray((np.clip(shape, 0, 1) * 255).astype(np.uint8))
    mask = mask.resize((width, height), Image.Resampling.BICUBIC)
    left, top = rng.integers(0, SIDE - width + 1), rng.integers(0, SIDE - height + 1)
    under = background[top : top + height, left : left + width].mean((0, 1))
    colour = rng.uniform(0, 1, 3)
    # A colour close to the background's would leave nothing to read.
    while np.abs(colour - under).max() < 0.4:
        colour = rng.uniform(0, 1, 3)
    alpha = np.zeros((SIDE, SIDE, 1), np.float32)
    alpha[top : top + height, left : left + width, 0] = np.asarray(mask, np.float32) / 255.0
    return np.round((background * (1 - alpha) + colour * alpha) * 255).astype(np.uint8)
