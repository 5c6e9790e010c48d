"""LoR-VP (Jin et al., arXiv 2502.00896): a visual prompt of low rank over the whole image."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vprompt_jax.parts import Canvas, Context, Part, Surroundings
from vprompt_jax.schema import Optimizer, TrainedSection, key, learning_rate, optimizer


class LowRankPrompt(nn.Module):
    """B A of each channel, with B [R, rank] zero at the start and A [rank, R] from N(0, 0.01^2).

    LoR-VP adds it before normalisation, which divides it by the standard deviation; this is added
    after it.

    Attributes:
      rank: columns of B and rows of A.
      resolution: side R of the image.
      std: of CLIP's normalisation, by channel.
    """

    rank: int
    resolution: int
    std: tuple[float, ...]

    @nn.compact
    def __call__(self) -> jax.Array:
        """The pixels to add, float32 [R, R, 3]."""
        side = self.resolution
        b = self.param("b", nn.initializers.zeros, (3, side, self.rank), jnp.float32)
        a = self.param("a", nn.initializers.normal(0.01), (3, self.rank, side), jnp.float32)
        std = jnp.asarray(self.std, jnp.float32)[:, None, None]
        return jnp.moveaxis(b @ a / std, 0, -1)

    def prompted(self, canvas: Canvas, context: Context) -> Canvas:
        """Makes the prompt what the canvas adds to its images."""
        del context
        pixels = self()[None]
        shown = {**canvas.shown, "prompt": pixels}
        everywhere = np.ones(pixels.shape[:-1], bool)
        return canvas.replace(added=pixels, support=everywhere, shown=shown)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LowRankSection(TrainedSection):
    """A prompt over the whole image that is a product of two thin matrices."""

    template: str = key("none", "shape of the prompt", label="template")
    rank: int = key(
        4, "of a low_rank prompt", low=1, high=2**16, source="LoR-VP's code", label="prompt rank"
    )
    learning_rate: float = learning_rate(0.02, "LoR-VP's code")
    optimizer: Optimizer = optimizer("sgd", "LoR-VP's code")


class LowRankPart(Part[LowRankSection]):
    """The visual prompt of low rank."""

    name = "prompt"
    section = LowRankSection
    switch = "template"
    kind = "low_rank"
    side = "pixels"
    order = 20

    def build(self, section: LowRankSection, around: Surroundings) -> LowRankPrompt:
        if section.rank > around.resolution:
            raise ValueError(
                f"prompt.rank={section.rank} is over the image's side of {around.resolution} pixels"
            )
        return LowRankPrompt(section.rank, around.resolution, around.clip.config.std)

    def facts(
        self, section: LowRankSection, built: LowRankPrompt, around: Surroundings
    ) -> dict[str, Any]:
        del section, built
        return {"prompt_size": around.resolution, "prompt_covers_image": True}


PART = LowRankPart()
