"""Tip-Adapter and Tip-Adapter-F (Zhang et al., arXiv 2111.03930): a cache of image features.

The formula and the defaults are those of the authors' code (gaopengcuhk/Tip-Adapter); where its
settings differ by dataset, those for ImageNet. There, the features are means over augmented copies
of an image; here they are of the image as it is, and so computed once.
"""

import dataclasses
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vprompt_jax.clip.model import cosine_logits
from vprompt_jax.heads import caching
from vprompt_jax.parts import Head, HeadInputs, Part, Solver, Surroundings
from vprompt_jax.parts.part import needs_text
from vprompt_jax.schema import (
    LARGE,
    Optimizer,
    Section,
    TrainedSection,
    key,
    learning_rate,
    optimizer,
)


class CacheHead(Head):
    """Scores classes as CLIP does, plus alpha times what is cached of them.

    logits = exp(logit_scale) cos(f, text) + alpha sum over k of exp(-beta (1 - f k)), over the keys
    k of a class: features of its training images, of unit length. An empty cache adds nothing.
    Trained keys may have any length, as in the authors' code.

    Attributes:
      classes: C.
      per_class: P, the most keys of a class.
      trains: whether keys are parameters; if not, they are assigned.
    """

    classes: int
    per_class: int
    trains: bool

    def create(self, embed_dim: int) -> None:
        if self.trains:
            self._trained(embed_dim)

    @nn.compact
    def _trained(self, embed_dim: int) -> jax.Array:
        shape = (self.classes, self.per_class, embed_dim)
        return self.param("keys", nn.initializers.zeros, shape, jnp.float32)

    def __call__(
        self, features: jax.Array, given: HeadInputs
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Features [B, E] -> float32 logits [B, C]."""
        found = given.assigned
        keys = self._trained(features.shape[-1]) if self.trains else found["cache_keys"]
        cached = caching.cached_logits(
            caching.cosines_to(features, keys), found["cache_sizes"], found["cache_beta"]
        )
        zero_shot = cosine_logits(features, given.texts(), given.logit_scale())
        return zero_shot + found["cache_alpha"] * cached, {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class CachedSection(Section):
    """A cache of image features."""

    kind: str = key("text", "what turns image features into class logits")
    per_class: int = key(
        16,
        "training images that are cached of a class, the split's first, of tip_adapter(_f)",
        low=1,
        high=2**16,
        source="its largest number of shots",
    )
    alpha: float = key(
        1.17,
        "weight of the cache while its keys train, and without val",
        low=0,
        high=LARGE,
        source="its code, ImageNet",
    )
    beta: float = key(
        1.0,
        "sharpness of the cache while its keys train, and without val",
        low=0,
        high=100,
        source="its code",
    )
    alpha_max: float = key(
        3.0,
        "end of the search for alpha on val, which has 20 steps from 0.1",
        low=caching.LOWEST,
        high=LARGE,
        source="its code, ImageNet",
    )
    beta_max: float = key(
        7.0,
        "end of the search for beta on val, which has 200 steps from 0.1",
        low=caching.LOWEST,
        high=100,
        source="its code, ImageNet",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainedCacheSection(CachedSection, TrainedSection):
    """A cache of image features whose keys train."""

    learning_rate: float = learning_rate(1e-3, "its code")
    optimizer: Optimizer = optimizer("adamw", "its code")


class CachePart(Part[CachedSection]):
    """A cache of training images' features beside the class texts, without training."""

    name = "head"
    section = CachedSection
    switch = "kind"
    kind = "tip_adapter"
    side = "head"
    reads_texts = True

    def build(self, section: CachedSection, around: Surroundings) -> CacheHead:
        needs_text(f"head.kind={section.kind}", around, "config.head.kind=linear")
        return CacheHead(around.classes, section.per_class, self.trains)

    def arrays(self, section: CachedSection, around: Surroundings) -> Mapping[str, np.ndarray]:
        """An empty cache, of the size that it will have."""
        arrays: dict[str, np.ndarray] = {
            "cache_sizes": np.zeros(around.classes, np.int32),
            "cache_alpha": np.array(section.alpha, np.float32),
            "cache_beta": np.array(section.beta, np.float32),
        }
        if not self.trains:
            shape = (around.classes, section.per_class, around.clip.config.embed_dim)
            arrays["cache_keys"] = np.zeros(shape, np.float32)
        return arrays

    def solver(self, section: CachedSection) -> Solver | None:
        return caching.Cache(section.per_class, section.alpha_max, section.beta_max)


class TrainedCachePart(CachePart):
    """The same cache, whose keys train from there."""

    section = TrainedCacheSection
    kind = "tip_adapter_f"

    def solver(self, section: CachedSection) -> Solver | None:
        return caching.TrainedCache(section.per_class, section.alpha_max, section.beta_max)


PART = CachePart()
TRAINED = TrainedCachePart()
