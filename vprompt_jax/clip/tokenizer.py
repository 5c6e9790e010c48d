"""CLIP's tokenizer: lower-cased byte-pair encoding with 49,408 tokens."""

import functools
import gzip
import html
import importlib.resources
import re
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tokenizers import Tokenizer

START, END = "<|startoftext|>", "<|endoftext|>"
_MERGES = 49152 - 256 - 2  # how many of the file's merges CLIP's vocabulary uses
VOCABULARY = 512 + _MERGES + 2  # bytes, bytes that end a word, merges, start and end
_SPECIAL = re.compile(r"<\|startoftext\|>|<\|endoftext\|>")
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"


class LongText(ValueError):
    """A text has more tokens than a tower takes.

    Attributes:
      summary: the text and both numbers; `str` adds what a caller of `tokenize` can do.
    """

    def __init__(self, text: str, tokens: int, context_length: int):
        self.summary = (
            f"text of {tokens} tokens is longer than context_length={context_length}: {text!r}"
        )
        super().__init__(f"{self.summary} (shorten it, or pass truncate=True)")


def _byte_characters() -> list[str]:
    """The printable stand-ins for the 256 bytes, in the order of CLIP's vocabulary."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in printable]
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(len(rest))]


@functools.cache
def _tokenizer() -> tuple["Tokenizer", dict[str, int]]:
    """The tokenizer, and the ids of the two special tokens, which `_pieces` finds in its place."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    data = importlib.resources.files("vprompt_jax.clip") / "bpe_merges.txt.gz"
    lines = gzip.decompress(data.read_bytes()).decode("utf-8").split("\n")[1 : _MERGES + 1]
    merges = [(first, second) for first, second in map(str.split, lines)]
    characters = _byte_characters()
    names = characters + [c + "</w>" for c in characters] + ["".join(m) for m in merges]
    vocab = {name: i for i, name in enumerate([*names, START, END])}
    tokenizer = Tokenizer(models.BPE(vocab, merges, end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return tokenizer, {word: vocab[word] for word in (START, END)}


def _pieces(text: str) -> list[str]:
    """Splits a text at the special tokens that CLIP's tokenizer would recognise.

    After a symbol it recognises none: its pattern takes the symbol and the token's first
    characters as one word.
    """
    pieces, done = [], 0
    for match in _SPECIAL.finditer(text):
        before = text[done : match.start()][-1:]
        if not before or before.isspace() or unicodedata.category(before)[0] in "LN":
            pieces += [text[done : match.start()], match[0]]
            done = match.end()
    return [*pieces, text[done:]]


def mended(text: str) -> str:
    """A text without the damage of wrong decoding and of HTML's escapes."""
    import ftfy

    return html.unescape(html.unescape(ftfy.fix_text(text)))


def _clean(text: str) -> str:
    return re.sub(r"\s+", " ", mended(text)).strip().lower()


def tokenize(
    texts: str | Sequence[str], context_length: int = 77, truncate: bool = False
) -> np.ndarray:
    """Token ids of texts, as CLIP's own tokenizer gives them.

    Args:
      texts: one text or several.
      context_length: tokens per row, start and end tokens included.
      truncate: cut a text that is too long (its last token stays the end token).

    Returns:
      int32 [n, context_length], padded with 0.

    Raises:
      LongText: if a text is too long and `truncate` is False.
    """
    texts = [texts] if isinstance(texts, str) else list(texts)
    tokenizer, special = _tokenizer()
    start, end = special[START], special[END]
    rows = np.zeros((len(texts), context_length), np.int32)
    for row, text in zip(rows, texts, strict=True):
        ids = [start]
        for piece in _pieces(_clean(text)):
            ids += [special[piece]] if piece in special else tokenizer.encode(piece).ids
        ids.append(end)
        if len(ids) > context_length:
            if not truncate:
                raise LongText(text, len(ids), context_length)
            ids = [*ids[: context_length - 1], end]
        row[: len(ids)] = ids
    return rows
