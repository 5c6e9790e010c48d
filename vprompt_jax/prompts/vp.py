"""Visual prompts (VP, Bahng et al., arXiv 2203.17274): a learned template added to every image."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

TEMPLATES = ("padding", "fixed_patch", "random_patch")
STARTS = ("normal", "zeros")


def largest_size(template: str, resolution: int) -> int:
    """The size at which a template covers the whole image."""
    return (resolution + 1) // 2 if template == "padding" else resolution


def support(template: str, size: int, resolution: int) -> np.ndarray:
    """Where a template has parameters (a random patch: in its top-left place).

    Args:
      template: "padding" (width `size` on four sides), "fixed_patch" or "random_patch"
        (`size` x `size`).
      size: in pixels, 1..`largest_size`.
      resolution: side R of the image.

    Returns:
      bool [R, R].

    Raises:
      ValueError: if the size does not fit.
    """
    largest = largest_size(template, resolution)
    if not 1 <= size <= largest:
        raise ValueError(
            f"prompt.size={size} does not fit: a {template} prompt at {resolution} pixels has "
            f"size 1..{largest} ({largest} covers the image)"
        )
    mask = np.zeros((resolution, resolution), bool)
    if template == "padding":
        mask[:] = True
        mask[size : resolution - size, size : resolution - size] = False
    else:
        mask[:size, :size] = True
    return mask


class VisualPrompt(nn.Module):
    """A template of free pixel values, added after CLIP's normalisation and not clamped.

    Attributes:
      template: one of `TEMPLATES`.
      size: width of the padding or side of the patch, in pixels.
      resolution: side R of the image.
      start: "normal", N(0, 1) as published, or "zeros", which starts at the unprompted model.
    """

    template: str
    size: int
    resolution: int
    start: str = "normal"

    @nn.compact
    def __call__(self, place_keys: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The prompt as it is added.

        Args:
          place_keys: PRNG keys [n] that place a random patch: one for the batch (training) or
            one per example (evaluation). Other templates ignore them.

        Returns:
          Pixels float32 [m, R, R, 3], zero where the template has no parameters, and the
          support bool [m, R, R]; m is n for a random patch, else 1.
        """
        side = self.resolution
        mask = support(self.template, self.size, side)
        init = nn.initializers.normal(1.0) if self.start == "normal" else nn.initializers.zeros
        values = self.param("values", init, (int(mask.sum()), 3), jnp.float32)
        pixels = jnp.zeros((side * side, 3), jnp.float32)
        pixels = pixels.at[np.flatnonzero(mask)].set(values, unique_indices=True)
        pixels = pixels.reshape(side, side, 3)
        if self.template != "random_patch":
            return pixels[None], jnp.asarray(mask)[None]

        def place(key):
            shift = jax.random.randint(key, (2,), 0, side - self.size + 1)
            moved = jnp.roll(pixels, shift, axis=(0, 1))
            return moved, jnp.roll(jnp.asarray(mask), shift, axis=(0, 1))

        return jax.vmap(place)(place_keys)
