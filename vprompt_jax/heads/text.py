"""The zero-shot head: the cosine between image features and the classes' text embeddings."""

import dataclasses

import jax

from vprompt_jax.clip.model import cosine_logits
from vprompt_jax.parts import Head, HeadInputs, Part, Surroundings
from vprompt_jax.parts.part import needs_text
from vprompt_jax.schema import Section, key


class TextHead(Head):
    """Scores each class by exp(logit_scale) times the cosine to its text (CLIP, section 3.1.2)."""

    def __call__(
        self, features: jax.Array, given: HeadInputs
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Features [B, E] -> float32 logits [B, C]."""
        return cosine_logits(features, given.texts(), given.logit_scale()), {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextHeadSection(Section):
    """The zero-shot head."""

    kind: str = key("text", "what turns image features into class logits")


class TextHeadPart(Part[TextHeadSection]):
    """Classifies zero-shot, as CLIP does."""

    name = "head"
    section = TextHeadSection
    switch = "kind"
    kind = "text"
    side = "head"
    reads_texts = True

    def build(self, section: TextHeadSection, around: Surroundings) -> TextHead:
        del section
        needs_text("head.kind=text", around, "config.head.kind=linear")
        return TextHead()


PART = TextHeadPart()
