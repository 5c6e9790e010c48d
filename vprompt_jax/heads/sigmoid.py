"""SigLIP's head and loss (Zhai et al., arXiv 2303.15343): each class is decided by itself."""

import dataclasses

import jax
import optax

from vprompt_jax.heads.text import TextHead, TextHeadPart, TextHeadSection
from vprompt_jax.parts import HeadInputs, Surroundings
from vprompt_jax.parts.head import smoothed
from vprompt_jax.parts.part import needs_text


class SigmoidHead(TextHead):
    """Scores each class by exp(logit_scale) times the cosine to its text, plus logit_bias.

    A class's sigmoid is the probability that its text describes the image, whatever the other
    classes are. Given that exactly one class does, its probability is the softmax of these logits,
    which the bias does not change: predictions and their shares are those of `TextHead`.
    """

    def __call__(
        self, features: jax.Array, given: HeadInputs
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Features [B, E] -> float32 logits [B, C]."""
        logits, out = super().__call__(features, given)
        return logits + given.logit_bias(), out

    @staticmethod
    def losses(logits: jax.Array, labels: jax.Array, smoothing: float = 0.0) -> jax.Array:
        """The sum over the classes of -log sigmoid(z logit), z = 1 for an image's class and -1 for
        the others, as SigLIP sums over the texts of a batch."""
        targets = smoothed(labels, logits.shape[-1], smoothing)
        return optax.sigmoid_binary_cross_entropy(logits, targets).sum(-1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SigmoidHeadSection(TextHeadSection):
    """SigLIP's head and loss; a type of its own, as a section tells which alternative is on."""


class SigmoidHeadPart(TextHeadPart):
    """Classifies zero-shot by SigLIP's logits, and trains with SigLIP's loss."""

    section = SigmoidHeadSection
    kind = "sigmoid"

    def build(self, section: TextHeadSection, around: Surroundings) -> SigmoidHead:
        del section
        needs_text("head.kind=sigmoid", around, "config.head.kind=linear")
        if not around.clip.config.logit_bias:
            raise ValueError(
                "head.kind=sigmoid needs a CLIP that was trained with a sigmoid loss and has a "
                "bias of the logits, such as SigLIP; this one has none: set config.head.kind=text"
            )
        return SigmoidHead()


PART = SigmoidHeadPart()
