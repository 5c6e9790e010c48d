"""Zero-shot head: cosine between image features and the classes' text embeddings."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from vprompt_jax.clip.model import CLIP, unit_norm
from vprompt_jax.clip.tokenizer import tokenize
from vprompt_jax.errors import UserError


def class_texts(class_names: Sequence[str], template: str) -> list[str]:
    """Puts class names, lower-cased with `_` and `-` as spaces (VP), into the template.

    Raises:
      UserError: if the template has no place for the name.
    """
    if template.count("{}") != 1:
        raise UserError(f"data.template={template!r} must hold the class name's place {{}} once")
    names = [n.lower().replace("_", " ").replace("-", " ") for n in class_names]
    return [template.format(name) for name in names]


def encode_classes(clip: CLIP, variables: dict, texts: Sequence[str]) -> jax.Array:
    """Text embeddings float32 [C, E] of unit length; computed once per run.

    Raises:
      UserError: if a text is longer than the checkpoint's context, or the tower's vocabulary is
        not CLIP's.
    """
    try:
        tokens = tokenize(texts, clip.config.context_length)
    except ValueError as error:
        raise UserError(f"class text too long for this checkpoint: {error}") from error
    if tokens.max() >= clip.config.vocab_size:
        raise UserError(
            f"the checkpoint knows {clip.config.vocab_size} tokens, CLIP's tokenizer needs "
            f"{tokens.max() + 1}: this text tower was trained with another tokenizer"
        )
    encode = jax.jit(lambda v, t: clip.apply(v, t, method="encode_text"))
    return unit_norm(encode(variables, tokens).astype(jnp.float32))


def cosine_logits(features: jax.Array, texts: jax.Array, logit_scale: jax.Array) -> jax.Array:
    """exp(logit_scale) * cosine: features [B, E], unit texts [C, E] -> float32 [B, C]."""
    return jnp.exp(logit_scale) * (unit_norm(features.astype(jnp.float32)) @ texts.T)
