"""The two towers, or an image tower alone, as one Flax module."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vprompt_jax.clip.config import CLIPConfig
from vprompt_jax.clip.layers import Tap, no_tap
from vprompt_jax.clip.resnet import ModifiedResNet
from vprompt_jax.clip.text import TextTransformer
from vprompt_jax.clip.towers import ViTConfig
from vprompt_jax.clip.vision import VisionTransformer
from vprompt_jax.process.errors import UserError


def unit_norm(features: jax.Array) -> jax.Array:
    """Scales each vector of [..., E] to Euclidean length 1; a zero vector stays zero."""
    x = features.astype(jnp.float32)
    square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    return (x * jax.lax.rsqrt(jnp.maximum(square, 1e-24))).astype(features.dtype)


def cosine_logits(features: jax.Array, texts: jax.Array, logit_scale: jax.Array) -> jax.Array:
    """exp(logit_scale) * cosine: features [B, E] and texts of unit length -> float32 [B, C].

    The texts are the same for all images, [C, E], or each image's own, [B, C, E].
    """
    x = unit_norm(features.astype(jnp.float32))
    cosines = x @ texts.T if texts.ndim == 2 else jnp.einsum("be,bce->bc", x, texts)
    return jnp.exp(logit_scale) * cosines


class CLIP(nn.Module):
    """CLIP (arXiv 2103.00020): an image tower and a text tower that share one embedding space.

    Without `config.text` it is an image tower alone, with the checkpoint's own classifier if it
    has one.

    Attributes:
      config: the architecture.
      dtype: dtype of the computation; parameters keep theirs.
      train: whether batch normalisation uses the batch's statistics and updates the stored ones.
        Only pretraining sets it; adapting a CLIP leaves the frozen statistics alone.
      vocabulary: path of the file that holds the text tower's vocabulary; "" if there is none, as
        with CLIP's own tokenizer. Only `class_texts` reads it; the towers take ids.
    """

    config: CLIPConfig
    dtype: jnp.dtype = jnp.float32
    train: bool = False
    vocabulary: str = ""

    def setup(self) -> None:
        c = self.config
        if isinstance(c.vision, ViTConfig):
            self.visual: nn.Module = VisionTransformer(c.vision, c.embed_dim, self.dtype)
        else:
            self.visual = ModifiedResNet(c.vision, c.embed_dim, self.train, self.dtype)
        if c.text is not None:
            self.text = TextTransformer(c.text, c.embed_dim, self.dtype)
            # ln(1/0.07): the paper starts with a temperature of 0.07.
            self.logit_scale = self.param("logit_scale", nn.initializers.constant(2.6592), ())
            if c.logit_bias:
                # -10: where SigLIP starts (arXiv 2303.15343, section 3.2): most pairs do not match.
                self.logit_bias = self.param("logit_bias", nn.initializers.constant(-10.0), ())
        if c.pre_logits:
            self.pre_logits = nn.Dense(c.pre_logits, dtype=self.dtype)
        if c.classes:
            self.classifier = nn.Dense(c.classes, dtype=self.dtype)

    def encode_image(
        self,
        images: jax.Array,
        *,
        start: int | None = None,
        stop: int | None = None,
        tap: Tap = no_tap,
    ) -> jax.Array:
        """Image features, not of unit length.

        Args:
          images: normalised pixels [B, R, R, 3], or the activation at position `start`.
          start: position to enter the tower at: i < L is the input of block i, L the features.
          stop: position whose activation is returned instead of the features.
          tap: called with every position and the activation there; what it returns replaces the
            activation.

        Returns:
          Features [B, E] in the module's dtype, or the activation at `stop`.
        """
        return self.visual(images, start=start, stop=stop, tap=tap)

    def encode_text(self, tokens: jax.Array, *, tap: Tap = no_tap) -> jax.Array:
        """Text features [B, E], not of unit length, of token ids int32 [B, T].

        Args:
          tokens: ids of the checkpoint's own vocabulary.
          tap: as in `TextTransformer`.

        Raises:
          UserError: if there is no text tower.
        """
        self.config.require_text()
        return self.text(tokens, tap=tap)

    def source_logits(self, features: jax.Array) -> jax.Array:
        """Logits [B, K] of the checkpoint's own classifier, from image features [B, E].

        Raises:
          UserError: if the checkpoint has no classifier.
        """
        if not self.config.classes:
            raise UserError("this checkpoint came without a classifier, so it has no classes")
        if self.config.pre_logits:
            features = jnp.tanh(self.pre_logits(features))
        return self.classifier(features)

    def __call__(self, images: jax.Array, tokens: jax.Array | None = None) -> jax.Array:
        """Logits [images, texts]: exp(logit_scale) times the cosine of every pair, and the bias.

        Without a text tower: the logits [images, K] of the checkpoint's own classifier, or the
        features if it has none.
        """
        image = self.encode_image(images)
        if not self.config.has_text:
            return self.source_logits(image) if self.config.classes else image
        if tokens is None:
            raise ValueError("a CLIP with a text tower needs tokens beside the images")
        text = unit_norm(self.encode_text(tokens))
        cosines = (unit_norm(image) @ text.T).astype(jnp.float32)
        logits = jnp.exp(self.logit_scale) * cosines
        return logits + self.logit_bias if self.config.logit_bias else logits


def image_tower_alone(clip: CLIP, variables: Mapping[str, Any]) -> tuple[CLIP, dict[str, Any]]:
    """A CLIP and its variables without the text tower and what compares with it."""
    config = dataclasses.replace(clip.config, text=None, logit_bias=False)
    of_texts = ("text", "logit_scale", "logit_bias")
    params = {k: v for k, v in variables["params"].items() if k not in of_texts}
    return CLIP(config, clip.dtype, clip.train), {**variables, "params": params}
