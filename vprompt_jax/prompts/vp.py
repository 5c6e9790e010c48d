"""Visual prompts: a learned template added to every image.

VP (Bahng et al., arXiv 2203.17274) learns every pixel of the template; LoR-VP (Jin et al., arXiv
2502.00896) learns a product of low rank over the whole image.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vprompt_jax.parts import Canvas, Context, Part, Surroundings
from vprompt_jax.schema import (
    Optimizer,
    Section,
    TrainedSection,
    key,
    learning_rate,
    optimizer,
)


def largest_size(template: str, resolution: int) -> int:
    """The size at which a template covers the whole image."""
    return (resolution + 1) // 2 if template == "padding" else resolution


def support(template: str, size: int, resolution: int) -> np.ndarray:
    """Where a template has parameters; a random patch is taken at its top-left place.

    Args:
      template: "padding" (of width `size` on four sides), "fixed_patch" or "random_patch" (of
        `size` x `size` pixels), "low_rank" (of the image's size).
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
    """A template of pixel values, added after CLIP's normalisation and not clamped.

    The values are free, or for "low_rank" (B A) / std of each channel, with B [R, rank] zero at the
    start and A [rank, R] from N(0, 0.01^2). LoR-VP adds B A before normalisation, which divides it
    by the standard deviation.

    Attributes:
      template: as of `support`.
      size: width of the padding or side of the patch, in pixels.
      resolution: side R of the image.
      init_from: "normal" for N(0, 1), as published, or "zeros", which starts at the model without
        a prompt; not of "low_rank".
      rank: of "low_rank".
      std: of CLIP's normalisation, by channel; for "low_rank".
    """

    template: str
    size: int
    resolution: int
    init_from: str = "normal"
    rank: int = 4
    std: tuple[float, ...] = (1.0, 1.0, 1.0)

    @nn.compact
    def __call__(self, place_keys: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The pixels to add, and where they have parameters.

        Args:
          place_keys: PRNG keys [n] that place a random patch: one for the whole batch in training,
            one per example at evaluation. Other templates ignore them.

        Returns:
          Pixels float32 [m, R, R, 3], zero where the template has no parameters, and the support
          bool [m, R, R]; m is n for a random patch, else 1.
        """
        side = self.resolution
        mask = support(self.template, self.size, side)
        if self.template == "low_rank":
            return self._product()[None], jnp.asarray(mask)[None]
        init = nn.initializers.normal(1.0) if self.init_from == "normal" else nn.initializers.zeros
        values = self.param("values", init, (int(mask.sum()), 3), jnp.float32)
        pixels = jnp.zeros((side * side, 3), jnp.float32)
        pixels = pixels.at[np.flatnonzero(mask)].set(values, unique_indices=True)
        pixels = pixels.reshape(side, side, 3)
        if self.template != "random_patch":
            return pixels[None], jnp.asarray(mask)[None]

        def place(key: jax.Array) -> tuple[jax.Array, jax.Array]:
            shift = jax.random.randint(key, (2,), 0, side - self.size + 1)
            moved = jnp.roll(pixels, shift, axis=(0, 1))
            return moved, jnp.roll(jnp.asarray(mask), shift, axis=(0, 1))

        return jax.vmap(place)(place_keys)

    def _product(self) -> jax.Array:
        """The low-rank prompt, float32 [R, R, 3]."""
        side = self.resolution
        b = self.param("b", nn.initializers.zeros, (3, side, self.rank), jnp.float32)
        a = self.param("a", nn.initializers.normal(0.01), (3, self.rank, side), jnp.float32)
        std = jnp.asarray(self.std, jnp.float32)[:, None, None]
        return jnp.moveaxis(b @ a / std, 0, -1)

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

    template: Literal["none", "padding", "fixed_patch", "random_patch", "low_rank"] = key(
        "none",
        "shape of the prompt; low_rank: over the whole image, a product of two thin matrices",
        label="template",
    )
    rank: int = key(
        4, "of a low_rank prompt", low=1, high=2**16, source="LoR-VP's code", label="prompt rank"
    )
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
    side = "pixels"
    order = 20

    def check(self, section: PromptSection, sections: Mapping[str, Section]) -> None:
        if section.template != "low_rank":
            return
        if section.size is not None:
            raise ValueError(
                "config.prompt.size: a low_rank prompt covers the image; omit the size, or set "
                "another config.prompt.template"
            )
        if section.init == "zeros":
            raise ValueError(
                "config.prompt.init=zeros: of a low_rank prompt's two factors one is zero at the "
                "start as it is, and from two it cannot learn; omit it"
            )

    def build(self, section: PromptSection, around: Surroundings) -> VisualPrompt:
        side, size = around.resolution, section.size
        if size is None:
            # The papers' 30 at 224 pixels, or the whole image.
            size = side if section.template == "low_rank" else round(30 / 224 * side)
        support(section.template, size, side)
        std = around.clip.config.std
        return VisualPrompt(section.template, size, side, section.init, section.rank, std)

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
