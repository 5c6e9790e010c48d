"""Texts as token ids, by the tokenizer that a text tower was trained with.

CLIP's is part of this package. SigLIP's and SigLIP 2's vocabularies are read from the files that
were published with the weights.
"""

import functools
import re
import string
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vprompt_jax.clip import tokenizer
from vprompt_jax.clip.towers import TextConfig
from vprompt_jax.process.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# The vocabulary, the first that is there, and what says how to use it.
FILES = ("tokenizer.json", "spiece.model")
SETTINGS = "tokenizer_config.json"
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def missing(tower: TextConfig, vocabulary: str) -> str:
    """Why texts cannot be turned into a tower's ids, and the way out; "" if they can.

    Args:
      tower: the text tower's config.
      vocabulary: path of its vocabulary's file; "" if there is none.
    """
    if tower.tokenizer != "clip":
        if tower.tokenizer is not None and vocabulary:
            return ""
        return (
            "this text tower was trained with a tokenizer of its own, which is not known here or "
            f"whose files are missing: put {FILES[0]} (or {FILES[1]}) and {SETTINGS} of the same "
            "repository beside the weights, or train a linear head (head.kind=linear)"
        )
    if tower.vocab_size == tokenizer.VOCABULARY:
        return ""
    return (
        f"the checkpoint knows {tower.vocab_size} tokens, CLIP's tokenizer has "
        f"{tokenizer.VOCABULARY}: this text tower was trained with another tokenizer, so it cannot "
        "embed class names; train a linear head (head.kind=linear), or choose a CLIP with CLIP's "
        "own vocabulary"
    )


def token_ids(
    tower: TextConfig, vocabulary: str, texts: Sequence[str], truncate: bool = False
) -> np.ndarray:
    """Token ids of texts: int32 [n, context_length].

    SigLIP's texts end with the end token and are filled up with the padding's; no token stands at
    their start. Unlike in transformers, "</s>" in a text for SigLIP is no token, but punctuation
    and an s.

    Args:
      tower: the text tower's config.
      vocabulary: path of its vocabulary's file; "" if there is none.
      texts: n texts.
      truncate: cut a text that is too long (its last token stays the end token).

    Raises:
      LongText: if a text is too long and `truncate` is False.
      UserError: if the vocabulary is missing, cannot be read, or is another tower's.
    """
    if problem := missing(tower, vocabulary):
        raise UserError(problem)
    length = tower.context_length
    if tower.tokenizer == "clip":
        return tokenizer.tokenize(texts, length, truncate)
    end = tower.end_token
    assert end is not None  # `TextConfig` sees to it
    encode = _encoder(vocabulary, str(tower.tokenizer), end)
    rows = np.full((len(texts), length), tower.pad_token, np.int32)
    for row, text in zip(rows, texts, strict=True):
        ids = [*encode(text), end]
        if len(ids) > length:
            if not truncate:
                raise tokenizer.LongText(text, len(ids), length)
            ids = [*ids[: length - 1], end]
        row[: len(ids)] = ids
    if rows.size and rows.max() >= tower.vocab_size:
        raise UserError(
            f"{vocabulary} gives the id {rows.max()}, and this text tower knows "
            f"{tower.vocab_size} tokens: the file belongs to another checkpoint"
        )
    return rows


def words_in(tower: TextConfig, tokens: np.ndarray) -> np.ndarray:
    """Which of the ids [..., N] stand for a part of the text: bool, of the same shape."""
    if tower.tokenizer != "clip":
        return (tokens != tower.end_token) & (tokens != tower.pad_token)
    # The first token is that of the start, and the largest that of the end.
    inside = np.arange(tokens.shape[-1]) > 0
    return inside & (tokens > 0) & (tokens < tokenizer.VOCABULARY - 1)


def canonical(text: str) -> str:
    """A text as SigLIP's tokenizer takes it: in lower case, without ASCII's punctuation, with
    single spaces (big_vision's `canonicalize_text`)."""
    return re.sub(r"\s+", " ", text.lower().translate(_NO_PUNCTUATION)).strip()


def open_clip_canonical(text: str) -> str:
    """A text as OpenCLIP's `canonicalize` leaves it: mended, and as `canonical` with a space for an
    underscore.

    It takes the punctuation out before it lower-cases, transformers (`canonical`) behind that: a
    capital sigma becomes another letter at the end of a word than inside one, and a comma ends a
    word.
    """
    return canonical(tokenizer.mended(text).replace("_", " ").translate(_NO_PUNCTUATION))


@functools.lru_cache(maxsize=4)
def _encoder(vocabulary: str, kind: str, end: int) -> Callable[[str], list[int]]:
    """Text -> its ids without special tokens.

    Args:
      vocabulary: path of its file.
      kind: one of `TOKENIZERS`, but CLIP's.
      end: id of the end token.

    Raises:
      UserError: if the file cannot be read, or adds other tokens to a text than the end's.
    """
    path = Path(vocabulary)
    if path.suffix == ".model":
        encode = _sentence_pieces(path).encode

        def pieces(text: str) -> list[int]:
            # Letter by letter, as the other file's library does: no sigma differs at a word's end.
            return encode("".join(map(str.lower, text)) if kind == "gemma" else text)
    else:
        fast = _fast(path)
        fast.no_truncation()
        fast.no_padding()
        # transformers reads this file for all tokenizers but SigLIP's, and then adds what it says.
        added = fast.encode("").ids
        if kind != "siglip" and added != [end]:
            raise UserError(
                f"{path} adds the tokens {added} to a text, which is not supported (supported: "
                f"the end token {end} alone): train a linear head (head.kind=linear)"
            )
        if kind == "gemma":
            from tokenizers import normalizers

            own = [] if fast.normalizer is None else [fast.normalizer]
            fast.normalizer = normalizers.Sequence([normalizers.Lowercase(), *own])

        def pieces(text: str) -> list[int]:
            return fast.encode(text, add_special_tokens=False).ids

    if kind == "siglip":
        # The mark of a space in vocabularies stands for one in texts, too.
        return lambda text: pieces(canonical(text.replace("\u2581", " ")))
    return pieces if kind == "gemma" else lambda text: pieces(open_clip_canonical(text))


def padding_side(path: Path) -> str | None:
    """The side, "left" or "right", on which a vocabulary's file fills up a text; None if it does
    not say.

    Raises:
      UserError: if the file cannot be read.
    """
    padding = None if path.suffix == ".model" else _fast(path).padding
    return None if padding is None else str(padding["direction"]).lower()


def id_of(path: Path, token: str) -> int | None:
    """The id that a vocabulary's file gives a token; None if it has none.

    Raises:
      UserError: if the file cannot be read.
    """
    if path.suffix != ".model":
        return _fast(path).token_to_id(token)
    processor = _sentence_pieces(path)
    found = processor.piece_to_id(token)
    return found if processor.id_to_piece(found) == token else None


def _fast(path: Path) -> "Tokenizer":
    from tokenizers import Tokenizer

    try:
        fast = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare ones
        raise UserError(f"{path} is not a readable tokenizer: {error}") from error
    return fast


def _sentence_pieces(path: Path) -> Any:
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError as error:
        raise UserError(
            f"{path} is read by a library that is not installed: pip install "
            f'"vprompt_jax[sentencepiece]", or put {FILES[0]} beside it'
        ) from error
    try:
        return SentencePieceProcessor(model_file=str(path))
    except (OSError, RuntimeError) as error:
        raise UserError(f"{path} is not a readable tokenizer: {error}") from error
