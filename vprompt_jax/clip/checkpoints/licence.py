"""The licence of a checkpoint, as the files beside its weights state it."""

import re
from pathlib import Path
from typing import Any

from vprompt_jax.clip.checkpoints import formats, locate

_MOST_BYTES = 2**16  # of a model card that are read: its keys come first
_KEYS = ("license", "license_name", "license_link")


def stated(weights: Path) -> str:
    """The licence, and which file states it; "" if none does.

    It is looked for in this package's own JSON, in the model card of a hub's repository
    (`README.md`), and in timm's `config.json`. OpenAI's files have names of their own.

    Args:
      weights: path of the weights, or of the index of their shards.
    """
    own = locate.own_json(weights)
    if own and (found := formats.read_json(own).get("licence")):
        return str(found)
    if weights.name in locate.OPENAI_FILES:
        return "MIT (github.com/openai/CLIP)"
    card = weights.parent / locate.CARD
    if card.is_file() and (found := _of_card(card)):
        return f"{found} ({locate.CARD})"
    config = weights.parent / "config.json"
    about: Any = formats.read_json(config).get("pretrained_cfg") if config.is_file() else None
    if isinstance(about, dict) and about.get("license"):
        return f"{about['license']} (config.json)"
    return ""


def _of_card(card: Path) -> str:
    """What the keys at the top of a model card say; "other" has its name and address there."""
    with card.open("rb") as file:
        text = file.read(_MOST_BYTES).decode(errors="replace")
    top = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", text, re.DOTALL)
    if top is None:
        return ""
    said = dict(re.findall(r"^(\w+):[ \t]*[\"']?([^\n\"']+)", top[1], re.MULTILINE))
    given = [said[key].strip() for key in _KEYS if said.get(key, "").strip()]
    return ", ".join(given)
