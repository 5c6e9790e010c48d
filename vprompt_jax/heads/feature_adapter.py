"""CLIP-Adapter (Gao et al., arXiv 2110.04544): a bottleneck on the image features.

The formula and the defaults are those of the authors' code (gaopengcuhk/CLIP-Adapter), which has
the adapter on the image side alone.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from vprompt_jax.clip.model import cosine_logits
from vprompt_jax.parts import Head, HeadInputs, Part, Surroundings
from vprompt_jax.parts.initializers import uniform_within
from vprompt_jax.parts.part import needs_text
from vprompt_jax.schema import Optimizer, TrainedSection, key, learning_rate, optimizer


class FeatureAdapterHead(Head):
    """Scores classes as CLIP does, by the features r relu(relu(f D) U) + (1 - r) f.

    f are the image features as the tower gives them, D [E, E / reduction] and U its counterpart.
    As in the authors' code there are no biases, both start as torch initialises Linear layers, and
    the second ReLU is there; so a fresh adapter changes the features.

    Attributes:
      reduction: by how much the bottleneck is narrower than the features.
      ratio: r.
    """

    reduction: int = 4
    ratio: float = 0.2

    def create(self, embed_dim: int) -> None:
        self._adapted(jnp.zeros((1, embed_dim)))

    @nn.compact
    def _adapted(self, features: jax.Array) -> jax.Array:
        channels = features.shape[-1]
        width = max(channels // self.reduction, 1)
        down = self.param("down", uniform_within(channels**-0.5), (channels, width))
        up = self.param("up", uniform_within(width**-0.5), (width, channels))
        return nn.relu(nn.relu(features @ down) @ up)

    def __call__(
        self, features: jax.Array, given: HeadInputs
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Features [B, E] -> float32 logits [B, C]."""
        x = features.astype(jnp.float32)
        x = self.ratio * self._adapted(x) + (1 - self.ratio) * x
        return cosine_logits(x, given.texts(), given.logit_scale()), {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureAdapterSection(TrainedSection):
    """A bottleneck on the image features."""

    kind: str = key("text", "what turns image features into class logits")
    reduction: int = key(
        4, "features over bottleneck, of clip_adapter", low=1, high=2**16, source="its code"
    )
    ratio: float = key(
        0.2, "share of the bottleneck's output, of clip_adapter", low=0, high=1, source="its code"
    )
    learning_rate: float = learning_rate(1e-2, "ours, chosen on val: docs/methods.md")
    optimizer: Optimizer = optimizer("adamw", "ours")


class FeatureAdapterPart(Part[FeatureAdapterSection]):
    """A bottleneck between the image features and the class texts."""

    name = "head"
    section = FeatureAdapterSection
    switch = "kind"
    kind = "clip_adapter"
    side = "head"
    reads_texts = True

    def build(self, section: FeatureAdapterSection, around: Surroundings) -> FeatureAdapterHead:
        needs_text("head.kind=clip_adapter", around, "config.head.kind=linear")
        return FeatureAdapterHead(section.reduction, section.ratio)


PART = FeatureAdapterPart()
