"""The files beside weights that hold a text tower's vocabulary and say how to use it."""

from pathlib import Path
from typing import Any

from vprompt_jax.clip.checkpoints import formats
from vprompt_jax.clip.config import Fields
from vprompt_jax.clip.towers import TextConfig
from vprompt_jax.clip.vocabularies import FILES, SETTINGS, id_of
from vprompt_jax.process.errors import UserError

# transformers' names of tokenizers -> ours (`towers.TOKENIZERS`).
_CLASSES = {
    "SiglipTokenizer": "siglip",
    "Siglip2Tokenizer": "gemma",
    "GemmaTokenizer": "gemma",
    "GemmaTokenizerFast": "gemma",
}
# Other values would be other ids than those that the towers were trained with.
_MUST = {"do_lower_case": True, "add_bos_token": False, "add_eos_token": True}


def tokenizer_fields(folder: Path) -> Fields:
    """The fields of the text tower that `tokenizer_config.json` tells.

    Returns:
      "text.tokenizer", which is None if this file or the vocabulary's is missing, or the tokenizer
      is not known here; else also "text.end_token" and "text.pad_token".

    Raises:
      UserError: if it has a value that is not supported, or does not tell an id.
    """
    file = folder / SETTINGS
    said = formats.read_json(file) if file.is_file() else {}
    kind = _CLASSES.get(str(said.get("tokenizer_class")))
    vocabulary = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if kind is None or vocabulary is None:
        return {"text.tokenizer": None}
    for key, value in _MUST.items():
        if said.get(key, value) is not value:
            raise UserError(
                f"{file} asks for {key}={said[key]!r}, which is not supported: choose another "
                "checkpoint, or move the file away and train a linear head (head.kind=linear)"
            )
    end, pad = ("</s>", "</s>") if kind == "siglip" else ("<eos>", "<pad>")
    return {
        "text.tokenizer": kind,
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
