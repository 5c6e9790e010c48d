"""Edge detectors with fixed weights, whose output AdaViPro's mask generator sees."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def _neighbours(x: jax.Array) -> Callable[[int, int], jax.Array]:
    """Returns at(dy, dx), which shifts the images [B, H, W, C] and is zero beyond the border."""
    height, width = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return lambda dy, dx: padded[:, 1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]


def laplacian(x: jax.Array) -> jax.Array:
    """4-neighbour Laplacian [[0,1,0],[1,-4,1],[0,1,0]], padding 1, per channel (AdaViPro)."""
    at = _neighbours(x)
    return at(-1, 0) + at(1, 0) + at(0, -1) + at(0, 1) - 4.0 * x


def sobel(x: jax.Array) -> jax.Array:
    """Gradient magnitude of the two 3x3 Sobel filters, padding 1, per channel."""
    at = _neighbours(x)
    across = at(-1, 1) + 2.0 * at(0, 1) + at(1, 1) - at(-1, -1) - 2.0 * at(0, -1) - at(1, -1)
    down = at(1, -1) + 2.0 * at(1, 0) + at(1, 1) - at(-1, -1) - 2.0 * at(-1, 0) - at(-1, 1)
    return jnp.sqrt(across**2 + down**2)


def none(x: jax.Array) -> jax.Array:
    """No detector: the generator sees the image itself (AdaViPro, table 4)."""
    return x


EDGES = {"laplacian": laplacian, "sobel": sobel, "none": none}
