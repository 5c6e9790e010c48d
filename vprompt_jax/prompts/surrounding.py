"""EVP (Wu et al., arXiv 2212.10556): a frame of learned pixels around an image made smaller.

The formulas are those of the authors' code (UCSC-VLAA/EVP, `main.py`). EVP also flips and crops the
training images: `config.data.augment`.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
import optax

from vprompt_jax.clip.preprocess import resize_matrix
from vprompt_jax.parts import Canvas, Context, Part, Surroundings
from vprompt_jax.prompts.vp import VisualPrompt, prompt_size
from vprompt_jax.schema import Optimizer, TrainedSection, key, learning_rate, optimizer


class SurroundingPrompt(VisualPrompt):
    """Shrinks the image from R to R - 2 size pixels and puts learned pixels around it.

    The learned values are of pixels in [0, 1], not clamped, and normalised with the image; they
    start at zero, which is black. The image is shrunk as the tower would see it, bicubically with
    antialiasing; EVP's code shrinks the original instead.

    Attributes:
      mean, std: of CLIP's normalisation, by channel.
    """

    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)

    def prompted(self, canvas: Canvas, context: Context) -> Canvas:
        """Replaces the canvas's images by smaller ones on black, and adds the frame to them."""
        canvas = super().prompted(canvas, context)
        mean, std = (jnp.asarray(v, jnp.float32)[None, None, None] for v in (self.mean, self.std))
        pixels = canvas.shown["prompt"] / std
        smaller = jnp.asarray(resize_matrix(self.resolution, self.resolution - 2 * self.size))
        image = jnp.einsum("bhwc,ih,jw->bijc", canvas.image * std + mean, smaller, smaller)
        margin = (self.size, self.size)
        image = (jnp.pad(image, ((0, 0), margin, margin, (0, 0))) - mean) / std
        shown = {**canvas.shown, "prompt": pixels}
        return canvas.replace(image=image, added=pixels, shown=shown)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SurroundingSection(TrainedSection):
    """Pixels around an image made smaller."""

    template: str = key("none", "shape of the prompt", label="template")
    size: int | None = key(
        None,
        "width of the frame (pixels); none: 30/224 of the image's side",
        low=1,
        high=2**16,
        source="EVP's code",
        label="prompt size (px)",
        axis="prompt size (pixels)",
        fact="prompt_size",
    )
    learning_rate: float = learning_rate(
        7.0, "EVP's code has 70 without momentum; its gradient is divided by its length"
    )
    optimizer: Optimizer = optimizer("sgd", "EVP's code")


class SurroundingPart(Part[SurroundingSection]):
    """The visual prompt around an image made smaller."""

    name = "prompt"
    section = SurroundingSection
    switch = "template"
    kind = "around"
    side = "pixels"
    order = 20

    def build(self, section: SurroundingSection, around: Surroundings) -> SurroundingPrompt:
        side, size = around.resolution, prompt_size(section.size, around.resolution)
        if 2 * size >= side:
            raise ValueError(
                f"prompt.size={size} leaves nothing of an image of {side} pixels: choose 1.."
                f"{(side - 1) // 2}"
            )
        c = around.clip.config
        return SurroundingPrompt("padding", size, side, "zeros", c.mean, c.std)

    def transform(self, section: SurroundingSection, optimizer: Any) -> Any:
        """Divides the prompt's gradient by its Euclidean length before the optimiser sees it.

        EVP's code takes the length over all pixels, those under the image included; the prompt has
        none there.
        """
        return optax.chain(optax.normalize_by_update_norm(eps=1e-10), optimizer)

    def facts(
        self, section: SurroundingSection, built: SurroundingPrompt, around: Surroundings
    ) -> dict[str, Any]:
        del section, around
        return {"prompt_init": "zeros", "prompt_size": built.size, "prompt_covers_image": False}


PART = SurroundingPart()
