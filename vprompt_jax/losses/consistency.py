"""PromptSRC's self-regularisation (Khattak et al., arXiv 2307.06948): stay near the frozen CLIP.

The formulas and weights are those of the authors' code (muzairkhattak/PromptSRC,
`trainers/promptsrc.py` and its config), but that the frozen texts are those of `data.template` or
`data.templates`, where the code always has the ImageNet templates.
"""

import dataclasses
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from vprompt_jax.clip.model import cosine_logits, unit_norm
from vprompt_jax.parts import LossInputs, Part, Penalty, Surroundings
from vprompt_jax.parts.part import needs_text
from vprompt_jax.schema import LARGE, Section, key

_CODE = "PromptSRC's code"


class Consistency(Penalty):
    """The distance of features, texts and logits to those of the frozen CLIP.

    The penalty of an image with features f is

        a mean |f - f0| + b mean |t - t0| + c mean p0 (log p0 - log p),

    with unit lengths, 0 for the frozen CLIP, and p the softmax of the logits. The means are over
    channels, over classes and channels, and over classes.

    Attributes:
      images, texts, logits: the weights a, b and c.
    """

    images: float
    texts: float
    logits: float

    def __call__(self, given: LossInputs) -> jax.Array:
        images = unit_norm(given.features.astype(jnp.float32))
        frozen = unit_norm(given.frozen_features.astype(jnp.float32))
        texts = given.texts if given.texts.ndim == 3 else given.texts[None]
        before = cosine_logits(frozen, given.frozen_texts, given.logit_scale)
        log_p, log_p0 = nn.log_softmax(given.logits), nn.log_softmax(before)
        return (
            self.images * jnp.abs(images - frozen).mean(-1)
            + self.texts * jnp.abs(texts - given.frozen_texts[None]).mean((1, 2))
            + self.logits * (jnp.exp(log_p0) * (log_p0 - log_p)).mean(-1)
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConsistencySection(Section):
    """A penalty on the distance to the frozen CLIP."""

    kind: Literal["none", "l1"] = key("none", "l1: PromptSRC's distances")
    images: float = key(10.0, "weight of the image features'", low=0, high=LARGE, source=_CODE)
    texts: float = key(25.0, "weight of the texts'", low=0, high=LARGE, source=_CODE)
    logits: float = key(1.0, "weight of the logits'", low=0, high=LARGE, source=_CODE)


class ConsistencyPart(Part[ConsistencySection]):
    """A penalty on the distance to the frozen CLIP."""

    name = "consistency"
    section = ConsistencySection
    switch = "kind"
    side = "loss"

    def build(self, section: ConsistencySection, around: Surroundings) -> Consistency:
        needs_text("consistency.kind=l1", around, "config.consistency.kind=none")
        return Consistency(section.images, section.texts, section.logits)


PART = ConsistencyPart()
