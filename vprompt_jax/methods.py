"""The table of methods: each row says which parts a method has and their published defaults.

A row is a mapping of config keys to values. It fills the keys that a config leaves at None, so a
config or the command line can override any of them, and compose: `--config.method.name=adavipro
--config.head.kind=linear` trains AdaViPro's prompt and mask together with a linear head.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from vprompt_jax.clip.model import CLIP
from vprompt_jax.errors import UserError
from vprompt_jax.heads.linear import LinearHead
from vprompt_jax.model import PromptedCLIP
from vprompt_jax.prompts import adavipro
from vprompt_jax.prompts.vp import VisualPrompt, largest_size, support


@dataclasses.dataclass(frozen=True)
class Method:
    """One row: a line for the reader, and defaults by config key."""

    summary: str
    defaults: Mapping[str, Any]


_NO_PARTS = {"prompt.template": "none", "mask.kind": "none", "head.kind": "text"}
_VP = _NO_PARTS | {"prompt.template": "padding"}
_ADAVIPRO = _VP | {"mask.kind": "adavipro"}

METHODS: dict[str, Method] = {
    "tp": Method("text prompts: zero-shot CLIP, nothing is trained", _NO_PARTS),
    "vp": Method("visual prompt: learned pixels around (or on) every image", _VP),
    "adavipro": Method("the visual prompt, added per region where the image allows", _ADAVIPRO),
    "linear": Method("linear probe on frozen image features", _NO_PARTS | {"head.kind": "linear"}),
}

# Defaults of parts, whichever method uses them.
PART_DEFAULTS: dict[str, Any] = {
    # VP, section 4 and its code.
    "prompt.init": "normal",
    "prompt.learning_rate": 40.0,
    # AdaViPro, section 4.1.
    "mask.edge": "laplacian",
    "mask.width": 64,
    "mask.temperature": 5.0,
    "mask.temperature_decay": 0.98,
    "mask.temperature_min": 0.0,
    "mask.learning_rate": 1.0,
    # Ours, chosen on the validation split of the embedded digits (docs/mini.md).
    "head.learning_rate": 10.0,
}


def lookup(name: str) -> Method:
    """Returns the row of a method.

    Raises:
      UserError: if there is none.
    """
    if name not in METHODS:
        rows = "\n".join(f"  {key}: {row.summary}" for key, row in METHODS.items())
        raise UserError(f"unknown method {name!r}; config.method.name is one of\n{rows}")
    return METHODS[name]


def build(config, clip: CLIP, classes: int) -> PromptedCLIP:
    """Puts a method's parts together.

    Args:
      config: resolved by `config.resolve`; sizes left at None follow the tower's resolution.
      clip: the frozen CLIP.
      classes: number of classes.

    Raises:
      UserError: if a size does not fit the tower.
    """
    prompt = mask = head = None
    side = clip.config.image_resolution
    try:
        if config.prompt.template != "none":
            size = config.prompt.size
            if size is None:
                size = round(30 / 224 * side)  # the papers' 30 at 224 pixels
            support(config.prompt.template, size, side)
            prompt = VisualPrompt(config.prompt.template, size, side, config.prompt.init)
        if config.mask.kind != "none":
            region = config.mask.region
            if region is None:
                region = adavipro.default_region(side)
            adavipro.check_region(region, side)
            mask = adavipro.MaskGenerator(region, config.mask.width, config.mask.edge)
    except ValueError as error:
        raise UserError(str(error)) from error
    if config.head.kind == "linear":
        head = LinearHead(classes)
    return PromptedCLIP(clip, prompt, mask, head)


def describe(model: PromptedCLIP) -> dict[str, Any]:
    """What a run's parts were, for its result: {} for a method without a prompt."""
    parts: dict[str, Any] = {}
    if model.prompt is not None:
        parts["prompt_init"] = model.prompt.start
        parts["prompt_size"] = model.prompt.size
        parts["prompt_covers_image"] = model.prompt.size == largest_size(
            model.prompt.template, model.resolution
        )
    if model.mask is not None:
        parts["region"] = model.mask.region
    return parts
