"""The table of methods: each row says which parts a method has and their published defaults.

A row is a mapping of config keys to values. It fills the keys that a config leaves at None, so a
config or the command line can override any of them, and compose: `--config.method.name=adavipro
--config.ap.positions="(3,)" --config.head.kind=linear` trains AdaViPro's prompt and mask, an
activation prompt and a linear head together.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from vprompt_jax.process.errors import UserError

# What can be trained. Each part has a config section, a learning rate and an optimiser of its own.
PARTS = ("prompt", "mask", "vpt", "ap", "adapter", "lora", "ssf", "tune", "head")
OPTIMIZERS = ("sgd", "adamw")


@dataclasses.dataclass(frozen=True)
class Method:
    """One row: a line for the reader, and defaults by config key."""

    summary: str
    defaults: Mapping[str, Any]


_NO_PARTS = {
    "prompt.template": "none",
    "mask.kind": "none",
    "vpt.kind": "none",
    "ap.positions": (),
    "adapter.width": 0,
    "lora.rank": 0,
    "ssf.kind": "none",
    "tune.weights": "none",
    "head.kind": "text",
}


def row(summary: str, **parts: Any) -> Method:
    """A row from its differences to a method without parts, `__` standing for the dot."""
    return Method(summary, _NO_PARTS | {k.replace("__", "."): v for k, v in parts.items()})


METHODS: dict[str, Method] = {
    "tp": row("text prompts: zero-shot CLIP, nothing is trained"),
    "vp": row("visual prompt: pixels around (or on) every image", prompt__template="padding"),
    "adavipro": row(
        "the visual prompt, added per region where the image allows",
        prompt__template="padding",
        mask__kind="adavipro",
    ),
    "ap": row("activation prompt: one perturbation inside the tower", ap__positions=(0,)),
    "ilm": row(
        "visual prompt of a supervised tower, its classes mapped to the target's",
        prompt__template="padding",
        head__kind="mapping",
    ),
    "linear": row("linear probe on frozen image features", head__kind="linear"),
    "full": row("full fine-tune of the image tower", tune__weights="all"),
    "norm": row(
        "scales and biases of the tower's normalisations",
        tune__weights="norm",
        tune__learning_rate=1e-2,
    ),
    "bitfit": row(
        "all biases of the tower (BitFit)", tune__weights="bias", tune__learning_rate=1e-2
    ),
    "lora": row("low-rank additions to the tower's projections (LoRA)", lora__rank=4),
    "adapter": row("bottleneck adapters in the tower's residual branches", adapter__width=64),
    "ssf": row("a scale and a shift after every layer of the tower (SSF)", ssf__kind="all"),
    "vpt_shallow": row("learned tokens before the first block (VPT)", vpt__kind="shallow"),
    "vpt_deep": row("learned tokens before every block (VPT)", vpt__kind="deep"),
}

# Defaults of parts, whichever method uses them.
PART_DEFAULTS: dict[str, Any] = {
    # VP, section 4 and its code.
    "prompt.init": "normal",
    "prompt.learning_rate": 40.0,
    "prompt.optimizer": "sgd",
    # AdaViPro, section 4.1.
    "mask.edge": "laplacian",
    "mask.width": 64,
    "mask.temperature": 5.0,
    "mask.temperature_decay": 0.98,
    "mask.temperature_min": 0.0,
    "mask.learning_rate": 1.0,
    "mask.optimizer": "sgd",
    # LoRA, section 4.2: query and value; alpha equal to the rank, a factor of one.
    "lora.alpha": 4.0,
    "lora.targets": ("q", "v"),
    # VPT's best count lies between 1 and 200 by dataset (appendix); ten is ours.
    "vpt.tokens": 10,
    # What follows is ours: learning rates were chosen on the validation split of the embedded
    # digits, on both embedded towers (docs/methods.md).
    "ap.shape": "full",
    "ap.learning_rate": 1.0,
    "ap.optimizer": "sgd",
    "vpt.learning_rate": 3e-2,
    "vpt.optimizer": "adamw",
    "adapter.learning_rate": 3e-3,
    "adapter.optimizer": "adamw",
    "lora.learning_rate": 1e-2,
    "lora.optimizer": "adamw",
    "ssf.learning_rate": 1e-2,
    "ssf.optimizer": "adamw",
    "tune.learning_rate": 1e-3,
    "tune.optimizer": "adamw",
    "head.mapping": "iterative",
    "head.solver": "sgd",
    "head.learning_rate": 10.0,
    "head.optimizer": "sgd",
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
