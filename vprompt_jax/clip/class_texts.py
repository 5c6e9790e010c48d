"""Turns class names into texts, and texts into embeddings by CLIP's text tower."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vprompt_jax.clip.model import CLIP, unit_norm
from vprompt_jax.clip.tokenizer import LongText
from vprompt_jax.clip.towers import TextConfig
from vprompt_jax.clip.vocabularies import token_ids, words_in
from vprompt_jax.process.errors import UserError
from vprompt_jax.process.printable import some_of

_TEXTS_AT_A_TIME = 1024  # encoded per call: ImageNet's ensemble has 80,000
_TOKENS_BY = 16  # texts are encoded in this many tokens or a multiple: few programs, little padding
_CLASSES_AT_A_TIME = 1024  # compared with all others per matrix product
_SAME_TEXT = 0.9999  # cosine above which two texts count as the same
_PAIRS_LISTED = 10  # shown in a message


def class_texts(class_names: Sequence[str], templates: Sequence[str]) -> list[list[str]]:
    """Puts class names into templates.

    A single template takes the name as VP does, lower-cased and with `_` and `-` as spaces. The
    templates of an ensemble take the name unchanged, as CLIP's authors do ("polka-dotted").

    Args:
      class_names: C names.
      templates: T templates.

    Returns:
      C lists of T texts.

    Raises:
      UserError: if a template does not hold the name's place exactly once.
    """
    for template in templates:
        if template.count("{}") != 1:
            raise UserError(
                f"data.template={template!r} must hold the class name's place {{}} once"
            )
    if len(templates) == 1:
        class_names = [n.lower().replace("_", " ").replace("-", " ") for n in class_names]
    return [[template.replace("{}", name) for template in templates] for name in class_names]


def tokens_of(clip: CLIP, texts: Sequence[Sequence[str]]) -> np.ndarray:
    """Token ids of C lists of T texts: int32 [C, T, N], N the checkpoint's context length.

    Raises:
      UserError: if there is no text tower, a text is longer than the checkpoint's context, or
        the tower's vocabulary is not at hand.
    """
    tower = clip.config.require_text()
    try:
        tokens = [token_ids(tower, clip.vocabulary, of_class) for of_class in texts]
    except LongText as error:
        raise UserError(
            f"class text too long for this checkpoint: {error.summary}; shorten the class's "
            "name or the template"
        ) from error
    return np.stack(tokens)


def without_padding(tokens: np.ndarray, tower: TextConfig, multiple: int = 1) -> np.ndarray:
    """Cuts off what stands behind the end of the longest text; a causal tower never looks there.

    Args:
      tokens: ids int32 [..., N].
      tower: the text tower's config; one that is not causal, or does not read at the end, is given
        all tokens.
      multiple: what is left is a multiple of it, or N.
    """
    if not tower.causal or tower.pooling != "end":
        return tokens
    ends = tokens if tower.end_token is None else tokens == tower.end_token
    length = int(ends.argmax(-1).max()) + 1
    return tokens[..., : -(-length // multiple) * multiple]


def mean_embeddings(features: jax.Array) -> jax.Array:
    """Averages the embeddings of each class's texts (CLIP, section 3.1.4).

    Args:
      features: text features [C, T, E], of any Euclidean length.

    Returns:
      float32 [C, E]: the means of the unit embeddings, scaled to unit length again.
    """
    return of_classes(unit_norm(features.astype(jnp.float32)))


def of_classes(embeddings: jax.Array) -> jax.Array:
    """The same for embeddings that have unit length: float32 [C, T, E] -> [C, E]."""
    return unit_norm(embeddings.mean(1))


def encode_texts(
    clip: CLIP, variables: Mapping[str, Any], texts: Sequence[Sequence[str]]
) -> jax.Array:
    """Computes the embeddings of the classes' texts, once per run.

    Args:
      clip: a CLIP with a text tower.
      variables: its variables.
      texts: C lists of T texts.

    Returns:
      float32 [C, T, E] of unit length.

    Raises:
      UserError: as from `tokens_of`.
    """
    tokens = without_padding(tokens_of(clip, texts), clip.config.require_text(), _TOKENS_BY)

    @jax.jit
    def encode(variables: Mapping[str, Any], tokens: jax.Array) -> jax.Array:
        features: Any = clip.apply(variables, tokens, method="encode_text")
        return unit_norm(features.astype(jnp.float32))

    flat = tokens.reshape(-1, tokens.shape[-1])
    width = min(len(flat), _TEXTS_AT_A_TIME)
    padded = np.pad(flat, ((0, -len(flat) % width), (0, 0)), mode="edge")
    parts = [encode(variables, part) for part in padded.reshape(-1, width, flat.shape[1])]
    return jnp.concatenate(parts)[: len(flat)].reshape(len(texts), -1, parts[0].shape[-1])


def encode_classes(
    clip: CLIP, variables: Mapping[str, Any], texts: Sequence[Sequence[str]]
) -> jax.Array:
    """The classes' embeddings, float32 [C, E]: the means of their texts', of unit length again.

    Arguments and errors are those of `encode_texts`.
    """
    return of_classes(encode_texts(clip, variables, texts))


def unlearned(clip: CLIP, variables: Mapping[str, Any], class_names: Sequence[str]) -> list[str]:
    """Finds classes whose names hold nothing that the text tower has learned.

    A tower that was trained on few words, like an embedded one's, has embeddings of zero for the
    tokens of all others.

    Args:
      clip: a CLIP with a text tower whose vocabulary is at hand.
      variables: its variables.
      class_names: names without a template.

    Returns:
      The names of which every token's embedding is zero.
    """
    embedding = np.asarray(variables["params"]["text"]["token_embedding"]["embedding"])
    learned: np.ndarray = np.any(embedding != 0, axis=1)
    tower = clip.config.require_text()
    tokens = token_ids(tower, clip.vocabulary, class_names, truncate=True)
    inner = words_in(tower, tokens)
    return [
        name
        for name, ids, own in zip(class_names, tokens, inner, strict=True)
        if own.any() and not learned[ids[own]].any()
    ]


def unlearned_message(names: Sequence[str], classes: int) -> str:
    """A warning that lists what `unlearned` found."""
    listed = some_of([repr(name) for name in names], _PAIRS_LISTED, ", ")
    return (
        f"the text tower has never seen the names of {len(names)} of {classes} classes, so a text "
        f"head can only learn them by their difference: {listed}. Give them more common names, "
        "train a linear head (head.kind=linear), or take a larger CLIP (model.checkpoint)"
    )


def indistinguishable(
    embeddings: np.ndarray | jax.Array, names: Sequence[str]
) -> list[tuple[str, str]]:
    """Finds pairs of classes whose texts the tower cannot tell apart.

    Every method that scores by text decides between such classes by rounding errors.

    Args:
      embeddings: [C, E] of unit length, as from `encode_classes`.
      names: the C class names.

    Returns:
      The names of the pairs whose cosine is above 0.9999, in the order of the classes.
    """
    rows = np.asarray(embeddings, np.float32)
    pairs: list[tuple[str, str]] = []
    for start in range(0, len(rows), _CLASSES_AT_A_TIME):
        cosines = rows[start : start + _CLASSES_AT_A_TIME] @ rows.T
        for i, j in np.argwhere(cosines > _SAME_TEXT):
            if start + i < j:
                pairs.append((names[start + i], names[j]))
    return pairs


def indistinguishable_message(pairs: Sequence[tuple[str, str]]) -> str:
    """A warning that names the pairs of `indistinguishable`; "" if there are none."""
    if not pairs:
        return ""
    names = some_of([f"{a!r} = {b!r}" for a, b in pairs], _PAIRS_LISTED, ", ")
    return (
        f"the text tower cannot tell {len(pairs)} pairs of classes apart (cosine above "
        f"{_SAME_TEXT}), so a head that has nothing but the texts cannot: {names}. Give them other "
        "names, train a linear head (head.kind=linear), or take a tower that was trained on such "
        "words"
    )
