"""Visual prompts (VP, Bahng et al., arXiv 2203.17274): a learned template added to every image."""

import dataclasses
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vprompt_jax.parts import Canvas, Context, Part, Surroundings
from vprompt_jax.schema import Optimizer, TrainedSection, key, learning_rate, optimizer


def largest_size(template: str, resolution: int) -> int:
    """The size at which a template covers the whole image."""
    return (resolution + 1) // 2 if template == "padding" else resolution


def prompt_size(size: int | None, resolution: int) -> int:
    """The size that a config asks for; where it leaves it open, the papers' 30 at 224 pixels."""
    return round(30 / 224 * resolution) if size is None else size


def support(template: str, size: int, resolution: int) -> np.ndarray:
    """Where a template has parameters; a random patch is taken at its top-left place.

    Args:
      template: "padding" (of width `size` on four sides), "fixed_patch" or "random_patch" (of
        `size` x `size` pixels).
      size: size in pixels, 1..`largest_size`.
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
      template: "padding", "fixed_patch" or "random_patch".
      size: width of the padding or side of the patch, in pixels.
      resolution: side R of the image.
      init_from: "normal" for N(0, 1), as published, or "zeros", which starts at the model without
        a prompt.
    """

    template: str
    size: int
    resolution: int
    init_from: str = "normal"

    @nn.compact
    def __call__(self, place_keys: jax.Array) -> tuple[jax.Array, jax.Array | np.ndarray]:
        """The pixels to add, and where they have parameters.

        Args:
          place_keys: PRNG keys [n] that place a random patch: one for the whole batch in training,
            one per example at evaluation. Other templates ignore them.

        Returns:
          Pixels float32 [m, R, R, 3], zero where the template has no parameters, and the support
          bool [m, R, R]; m is n for a random patch, else 1 (and the support a NumPy array).
        """
        side = self.resolution
        mask = support(self.template, self.size, side)
        init = nn.initializers.normal(1.0) if self.init_from == "normal" else nn.initializers.zeros
        values = self.param("values", init, (int(mask.sum()), 3), jnp.float32)
        pixels = jnp.zeros((side * side, 3), jnp.float32)
        pixels = pixels.at[np.flatnonzero(mask)].set(values, unique_indices=True)
        pixels = pixels.reshape(side, side, 3)
        if self.template != "random_patch":
            return pixels[None], mask[None]

        def place(key: jax.Array) -> tuple[jax.Array, jax.Array]:
            shift = jax.random.randint(key, (2,), 0, side - self.size + 1)
            moved = jnp.roll(pixels, shift, axis=(0, 1))
            return moved, jnp.roll(jnp.asarray(mask), shift, axis=(0, 1))

        return jax.vmap(place)(place_keys)

    def prompted(self, canvas: Canvas, context: Context) -> Canvas:
        """Makes the prompt what the canvas adds to its images."""
        pixels, where = self(_place_keys(context))
        shown = {**canvas.shown, "prompt": pixels}
        return canvas.replace(added=pixels, support=where, shown=shown)


def _place_keys(context: Context) -> jax.Array:
    """Keys that place a random patch.

    In training there is one per step, since VP draws one place for the whole batch. At evaluation
    there is one per example, the same at every evaluation.
    """
    if context.is_training:
        return context.step_key("place")[None]
    return context.example_keys("place at evaluation")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptSection(TrainedSection):
    """Pixels that are added after normalisation."""

    template: str = key("none", "shape of the prompt", label="template")
    size: int | None = key(
        None,
        "width of the padding or side of a patch (pixels); none: 30/224 of the image's side",
        low=1,
        high=2**16,
        source="VP, section 4",
        label="prompt size (px)",
        axis="prompt size (pixels)",
        fact="prompt_size",
    )
    init: Literal["normal", "zeros"] = key(
        "normal", "values at the start: N(0, 1) or 0", source="VP's code", label="start"
    )
    learning_rate: float = learning_rate(40.0, "VP, section 4")
    optimizer: Optimizer = optimizer("sgd", "VP, section 4")


class PromptPart(Part[PromptSection]):
    """The visual prompt."""

    name = "prompt"
    section = PromptSection
    switch = "template"
    kind = ("padding", "fixed_patch", "random_patch")
    side = "pixels"
    order = 20

    def build(self, section: PromptSection, around: Surroundings) -> VisualPrompt:
        side = around.resolution
        size = prompt_size(section.size, side)
        support(section.template, size, side)
        return VisualPrompt(section.template, size, side, section.init)

    def facts(
        self, section: PromptSection, built: VisualPrompt, around: Surroundings
    ) -> dict[str, Any]:
        del section
        covering = largest_size(built.template, around.resolution)
        return {
            "prompt_init": built.init_from,
            "prompt_size": built.size,
            "prompt_covers_image": built.size == covering,
        }


PART = PromptPart()
