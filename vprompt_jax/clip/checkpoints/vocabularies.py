"""The files beside weights that hold a text tower's vocabulary and say how to use it."""

from pathlib import Path
from typing import Any

from vprompt_jax.clip.checkpoints import formats
from vprompt_jax.clip.config import Fields
from vprompt_jax.clip.towers import TextConfig
from vprompt_jax.clip.vocabularies import FILES, SETTINGS, id_of, padding_side
from vprompt_jax.process.errors import UserError

# transformers' names of tokenizers -> ours (`towers.TOKENIZERS`), and T5's: the first SigLIP has a
# vocabulary of its kind, and OpenCLIP's repositories say so.
_CLASSES = {
    "SiglipTokenizer": "siglip",
    "Siglip2Tokenizer": "gemma",
    "GemmaTokenizer": "gemma",
    "GemmaTokenizerFast": "gemma",
    "T5Tokenizer": "t5",
    "T5TokenizerFast": "t5",
}
# The tokens at a text's end and behind it where the settings do not name them.
_ENDS = {"siglip": ("</s>", "</s>"), "gemma": ("<eos>", "<pad>"), "t5": ("</s>", "<pad>")}
# Other values would be other ids than those that the towers were trained with. What is added to a
# text, a tokenizer.json says itself, so that transformers looks at no other file.
_MUST = {"do_lower_case": True, "truncation_side": "right"}
_MUST_OF_PIECES = {"add_bos_token": False, "add_eos_token": True}


def tokenizer_fields(folder: Path) -> Fields:
    """The fields of the text tower that `tokenizer_config.json` tells.

    Returns:
      "text.tokenizer", which is None if this file or the vocabulary's is missing, or the tokenizer
      is not known here; else also "text.end_token" and "text.pad_token".

    Raises:
      UserError: if it has a value that is not supported, or does not tell an id.
    """
    kind, said, vocabulary = _tokenizer_in(folder)
    if kind not in ("siglip", "gemma") or vocabulary is None:
        return {"text.tokenizer": None}
    return {"text.tokenizer": kind} | _settings(folder / SETTINGS, kind, said, vocabulary)


def open_clip_tokenizer(
    name: str | None, kwargs: dict[str, Any], folder: Path, where: str
) -> Fields:
    """The same of OpenCLIP's config, which tells a tokenizer of transformers' and how texts are
    cleaned for it.

    Args:
      name: the tokenizer's; None or "" for CLIP's own.
      kwargs: arguments of OpenCLIP's tokenizer.
      folder: where the tokenizer's files lie, if there are any.
      where: what the user calls that config.

    Returns:
      As `tokenizer_fields`, and a notice where the tokenizer is not supported; {} for CLIP's own.

    Raises:
      UserError: as from `tokenizer_fields`.
    """
    if not name:
        if kwargs:
            raise UserError(
                f"{where} asks for tokenizer_kwargs={kwargs!r} of CLIP's tokenizer, which is not "
                "supported: choose another checkpoint"
            )
        return {}
    kind, said, vocabulary = _tokenizer_in(folder)
    if kwargs != {"clean": "canonicalize"}:
        return {
            "text.tokenizer": None,
            "notice": f"{where} names the tokenizer {name!r}, which is not supported: this CLIP "
            "can see images, but read no class names; train a linear head (head.kind=linear)",
        }
    if kind is None or vocabulary is None:
        return {"text.tokenizer": None}
    return {"text.tokenizer": "canonical"} | _settings(folder / SETTINGS, kind, said, vocabulary)


def _tokenizer_in(folder: Path) -> tuple[str | None, dict[str, Any], Path | None]:
    """The tokenizer in a folder: its kind (of `_ENDS`), settings and vocabulary's file; None for
    what is not there or not known."""
    file = folder / SETTINGS
    said = formats.read_json(file) if file.is_file() else {}
    vocabulary = next((folder / name for name in FILES if (folder / name).is_file()), None)
    return _CLASSES.get(str(said.get("tokenizer_class"))), said, vocabulary


def _settings(file: Path, kind: str, said: dict[str, Any], vocabulary: Path) -> Fields:
    """The ids of the end token and of the padding, if the other settings are supported.

    Args:
      file: of the settings.
      kind: the tokenizer's.
      said: the settings.
      vocabulary: the vocabulary's file.
    """
    must = _MUST | (_MUST_OF_PIECES if vocabulary.suffix == ".model" else {})
    found = {key: said.get(key, value) for key, value in must.items()}
    if "padding_side" in said or kind == "gemma":
        # Gemma's tokenizers fill up from the left if nothing says otherwise.
        must |= {"padding_side": "right"}
        found["padding_side"] = said.get("padding_side") or padding_side(vocabulary) or "left"
    for key, value in must.items():
        if found[key] != value:
            raise UserError(
                f"{file} asks for {key}={found[key]!r}, which is not supported: choose another "
                "checkpoint, or move the file away and train a linear head (head.kind=linear)"
            )
    end, pad = _ENDS[kind]
    return {
        "text.end_token": _id_of("eos_token", end, said, file, vocabulary),
        "text.pad_token": _id_of("pad_token", pad, said, file, vocabulary),
    }


def _id_of(key: str, default: str, said: dict[str, Any], file: Path, vocabulary: Path) -> int:
    """The id of a special token: from the settings, else from the vocabulary."""
    token = said.get(key) or default
    token = token.get("content") if isinstance(token, dict) else token
    listed = said.get("added_tokens_decoder") or {}
    try:
        ids = {str(entry["content"]): int(number) for number, entry in listed.items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file}: added_tokens_decoder is no list of tokens ({error!r})") from error
    found = ids.get(str(token))
    if found is None:
        found = id_of(vocabulary, str(token))
    if found is None:
        raise UserError(f"neither {file} nor {vocabulary.name} says which id {key} {token!r} has")
    return found


def own_name(weights: Path, file: str) -> Path:
    """Where this package's own format keeps a vocabulary: "w.tokenizer.json" for
    "w.safetensors"."""
    return weights.with_name(f"{weights.stem}.{file}")


def file_beside(weights: Path, text: TextConfig | None) -> str:
    """The path of the vocabulary's file that belongs to weights; "" if none is needed or there."""
    if text is None or text.tokenizer in (None, "clip"):
        return ""
    places = [own_name(weights, file) for file in FILES]
    places += [weights.parent / file for file in FILES]
    return str(next((place for place in places if place.is_file()), ""))
