"""Class names as texts, and their embeddings by a CLIP's text tower."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from vprompt_jax.clip.model import CLIP, unit_norm
from vprompt_jax.clip.tokenizer import VOCABULARY, LongText, tokenize
from vprompt_jax.process.errors import UserError

_TEXTS_AT_A_TIME = 1024  # ImageNet's ensemble has 80,000


def class_texts(class_names: Sequence[str], templates: Sequence[str]) -> list[list[str]]:
    """Puts class names into templates.

    A single template takes the name as VP does: lower-cased, with `_` and `-` as spaces. The
    templates of an ensemble take it as it is, as CLIP's authors do ("polka-dotted").

    Args:
      class_names: C names.
      templates: T templates.

    Returns:
      C lists of T texts.

    Raises:
      UserError: if a template has no place for the name.
    """
    for template in templates:
        if template.count("{}") != 1:
            raise UserError(
                f"data.template={template!r} must hold the class name's place {{}} once"
            )
    if len(templates) == 1:
        class_names = [n.lower().replace("_", " ").replace("-", " ") for n in class_names]
    return [[template.replace("{}", name) for template in templates] for name in class_names]


def encode_classes(clip: CLIP, variables: dict, texts: Sequence[Sequence[str]]) -> jax.Array:
    """Text embeddings of classes, computed once per run.

    Args:
      clip: with its text tower.
      variables: its weights.
      texts: C lists of T texts; a class's embedding is the mean of their unit embeddings, made
        unit again (CLIP, section 3.1.4).

    Returns:
      float32 [C, E] of unit length.

    Raises:
      UserError: if a text is longer than the checkpoint's context, or the tower's vocabulary is
        not CLIP's.
    """
    vocabulary = clip.config.text.vocab_size
    if vocabulary != VOCABULARY:
        raise UserError(
            f"the checkpoint knows {vocabulary} tokens, CLIP's tokenizer has {VOCABULARY}: this "
            "text tower was trained with another tokenizer, so it cannot embed class names; train "
            "a linear head (config.head.kind=linear), or choose a CLIP with CLIP's own vocabulary"
        )
    try:
        tokens = [tokenize(of_class, clip.config.text.context_length) for of_class in texts]
    except LongText as error:
        raise UserError(
            f"class text too long for this checkpoint: {error.summary}; shorten the class's "
            "name or the template"
        ) from error

    @jax.jit
    def encode(variables, tokens):
        return unit_norm(clip.apply(variables, tokens, method="encode_text").astype(jnp.float32))

    flat = np.concatenate(tokens)
    width = min(len(flat), _TEXTS_AT_A_TIME)
    padded = np.pad(flat, ((0, -len(flat) % width), (0, 0)), mode="edge")
    parts = [encode(variables, part) for part in padded.reshape(-1, width, flat.shape[1])]
    embeddings = jnp.concatenate(parts)[: len(flat)].reshape(len(texts), -1, parts[0].shape[-1])
    return unit_norm(embeddings.mean(1))
