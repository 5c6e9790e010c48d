"""The texts that the mini CLIPs are trained on, as token ids."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from vprompt_jax.clip.tokenizer import tokenize
from vprompt_jax.zoo import glyphs, words

TEMPLATES = (
    "This is a photo of a {}",
    "This is a photo of the {}",
    "a photo of a {}.",
    "a picture of the {}",
    "an image of {}",
    "the {}",
    "{}",
)


@dataclasses.dataclass(frozen=True)
class Captions:
    """Every caption of the classes and of the words.

    Attributes:
      classes: token ids int32 [C, K, T]; the photographs' classes come first, then the glyphs.
      words: token ids int32 [W, M, T].
      meanings: bool [W, C], whether a word is true of a class.
      borrowed: bool [W], whether it has these classes from a broader noun.
    """

    classes: np.ndarray
    words: np.ndarray
    meanings: np.ndarray
    borrowed: np.ndarray


def _tokens(names: Sequence[Sequence[str]], length: int) -> np.ndarray:
    """Token ids [n, K, length] of all names in all templates; shorter lists repeat."""
    texts = [[t.format(name) for name in own for t in TEMPLATES] for own in names]
    count = max(map(len, texts))
    rows = [(own * math.ceil(count / len(own)))[:count] for own in texts]
    return np.stack([tokenize(row, length) for row in rows])


def build(photo_classes: Sequence[str], length: int) -> Captions:
    """Captions of the photographs' classes and the glyphs, and of the words true of them.

    Args:
      photo_classes: names of the photographs' folders.
      length: tokens of the longest text the tower takes; the result's T is that of the longest
        caption.
    """
    names = [words.names_of(c) for c in photo_classes] + [glyphs.names(g) for g in glyphs.CLASSES]
    meant = words.meanings(photo_classes)
    for word, members in glyphs.KINDS.items():
        places = tuple(len(photo_classes) + glyphs.CLASSES.index(g) for g in members)
        meant[word] = words.Meaning(places, borrowed=False)
    meanings = np.zeros((len(meant), len(names)), bool)
    for row, meaning in enumerate(meant.values()):
        meanings[row, list(meaning.classes)] = True
    borrowed = np.array([meaning.borrowed for meaning in meant.values()])
    class_tokens, word_tokens = _tokens(names, length), _tokens([[w] for w in meant], length)
    used = max(np.nonzero(t.any((0, 1)))[0].max() + 1 for t in (class_tokens, word_tokens))
    return Captions(class_tokens[..., :used], word_tokens[..., :used], meanings, borrowed)
