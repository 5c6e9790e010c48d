"""Rotary positions (RoPE, arXiv 2104.09864) of an image's patches, along two axes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

PAIRINGS = ("halves", "pairs")
ORDERS = ("rows", "columns")


@dataclasses.dataclass(frozen=True)
class Places:
    """How the places of patches are counted along an axis.

    Attributes:
      reference: patches per side of the images on which they are 0, 1, 2, ...; on other images they
        lie as close as to span the same. None: a patch's place is that of its centre, where the
        image reaches from -2 pi to 2 pi (DINOv3).
      offset: what the first patch has in place of 0.
      order: whether the first channels are the "rows" or the "columns".
    """

    reference: int | None = None
    offset: float = 0.0
    order: str = "rows"

    def along(self, grid: int) -> np.ndarray:
        """The places of `grid` patches, float64 [grid]."""
        if self.reference is None:
            return 2 * np.pi * ((2 * np.arange(grid) + 1) / grid - 1)
        return (np.arange(grid) + self.offset) * self.reference / grid


CENTRES = Places()


def angles(grid: int, channels: int, base: float, places: Places = CENTRES) -> np.ndarray:
    """The angles by which the channels of a head turn at each patch.

    They are place / base^(4 i / channels), for i < channels / 4: first those of one axis, then
    those of the other. (Read in transformers' `dinov3_vit` and timm's `build_rotary_pos_embed`.)

    Args:
      grid: patches per side.
      channels: of a head; divisible by four.
      base: the largest wavelength's limit.
      places: along an axis.

    Returns:
      float64 [grid^2, channels / 2], row by row.
    """
    waves = base ** -np.arange(0, 1, 4 / channels)
    one_axis = places.along(grid)[:, None] * waves
    shape = (grid, grid, channels // 4)
    rows = np.broadcast_to(one_axis[:, None], shape)
    columns = np.broadcast_to(one_axis[None], shape)
    both = [rows, columns] if places.order == "rows" else [columns, rows]
    return np.concatenate(both, axis=-1).reshape(grid**2, channels // 2)


@dataclasses.dataclass(frozen=True)
class Rotation:
    """Turns queries or keys according to the place of their patch.

    Attributes:
      grid: patches per side.
      base: as in `angles`.
      pairing: which channels of a head turn together: of d channels i and i + d / 2 ("halves"), or
        2 i and 2 i + 1 ("pairs").
      places: along an axis.
    """

    grid: int
    base: float
    pairing: str
    places: Places = CENTRES

    def __call__(self, x: jax.Array) -> jax.Array:
        """Turns the last grid^2 of the tokens [B, N, heads, d].

        Tokens before them (the class token, registers, and what adapters put in) have no place, and
        stay as they are. The sums are float32, whatever the dtype of `x`.
        """
        batch, length, heads, channels = x.shape
        first = length - self.grid**2
        turn = angles(self.grid, channels, self.base, self.places)[None, :, None]
        cos, sin = jnp.asarray(np.cos(turn), jnp.float32), jnp.asarray(np.sin(turn), jnp.float32)
        patches = x[:, first:].astype(jnp.float32)
        if self.pairing == "halves":
            a, b = jnp.split(patches, 2, axis=-1)
        else:
            a, b = patches[..., ::2], patches[..., 1::2]
        turned = [a * cos - b * sin, a * sin + b * cos]
        if self.pairing == "halves":
            y = jnp.concatenate(turned, axis=-1)
        else:
            y = jnp.stack(turned, axis=-1).reshape(batch, -1, heads, channels)
        return jnp.concatenate([x[:, :first], y.astype(x.dtype)], axis=1)
