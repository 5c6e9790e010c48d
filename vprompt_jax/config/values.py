"""What values a config's keys may have."""

import math
from collections.abc import Mapping
from typing import Any

from vprompt_jax.adaptation.model import HEADS
from vprompt_jax.adapters import tuning
from vprompt_jax.adapters.activation import SHAPES as AP_SHAPES
from vprompt_jax.clip.config import ACTIVATIONS
from vprompt_jax.data.augment import AUGMENTATIONS
from vprompt_jax.heads import mapping
from vprompt_jax.methods import table
from vprompt_jax.process.errors import UserError
from vprompt_jax.prompts.edges import EDGES
from vprompt_jax.prompts.vp import STARTS, TEMPLATES

# Allowed values, and (low, high) ranges with both ends allowed, by key.
CHOICES = {
    "protocol": ("val", "paper"),
    "model.activation": (None, *ACTIVATIONS),
    "model.dtype": ("float32", "bfloat16"),
    "model.matmul_precision": ("default", "high", "highest"),
    "model.remat": ("none", "dots", "blocks"),
    "data.source": ("digits", "tfds", "folder", "manifest", "huggingface", "arrays", "given"),
    "data.templates": ("single", "ensemble"),
    "data.split": ("official", "vtab"),
    "data.augment": AUGMENTATIONS,
    "data.on_bad_image": ("stop", "skip"),
    "prompt.template": ("none", *TEMPLATES),
    "prompt.init": STARTS,
    "mask.kind": ("none", "adavipro"),
    "mask.edge": tuple(EDGES),
    "ap.shape": AP_SHAPES,
    "vpt.kind": ("none", "shallow", "deep"),
    "ssf.kind": ("none", "all"),
    "tune.weights": tuning.CHOICES,
    "head.kind": HEADS,
    "head.mapping": mapping.KINDS,
    "head.solver": ("sgd", "lbfgs"),
    "cache.mode": ("on", "auto", "off"),
    "cache.dtype": ("float32", "bfloat16", "float16"),
    "cache.storage": ("memory", "disk"),
    **{f"{part}.optimizer": table.OPTIMIZERS for part in table.PARTS},
}
_LARGE = 1e30  # well inside of float32
RANGES = {
    "seed": (0, 2**31 - 1),
    "data.val_fraction": (0.001, 0.5),
    "data.test_fraction": (0.001, 0.9),
    "data.few_shot": (1, 2**31 - 1),
    "data.split_seed": (0, 2**31 - 1),
    "data.workers": (1, 256),
    "prompt.size": (1, 2**16),
    "mask.region": (1, 2**16),
    "mask.width": (1, 2**16),
    "mask.temperature": (1e-30, _LARGE),
    "mask.temperature_decay": (1e-6, 1),
    "mask.temperature_min": (0, _LARGE),
    "vpt.tokens": (1, 2**16),
    "adapter.width": (0, 2**16),
    "lora.rank": (0, 2**16),
    "lora.alpha": (1e-6, _LARGE),
    **{f"{part}.learning_rate": (0, _LARGE) for part in table.PARTS},
    "optim.batch_size": (1, 2**20),
    "optim.epochs": (0, 10**6),
    "optim.momentum": (0, 0.999999),
    "optim.weight_decay": (0, _LARGE),
    "optim.warmup_steps": (0, 2**31 - 1),
    "optim.warmup_fraction": (0, 1),
    "optim.max_bad_steps": (1, 2**31 - 1),
    "eval.batch_size": (1, 2**20),
    "eval.every_epochs": (1, 2**31 - 1),
    "checkpoint.every_steps": (1, 2**31 - 1),
    "log.every_steps": (1, 2**31 - 1),
    "profile": (0, 1000),
}
# Sections whose first key switches them off, with the value that does.
OFF = {
    "prompt": ("template", "none"),
    "mask": ("kind", "none"),
    "ap": ("positions", ()),
    "vpt": ("kind", "none"),
    "adapter": ("width", 0),
    "lora": ("rank", 0),
    "ssf": ("kind", "none"),
    "tune": ("weights", "none"),
    "head": ("kind", "text"),
}


def check(values: Mapping[str, Any]) -> None:
    """Refuses values that no run could have.

    Args:
      values: by dotted key.

    Raises:
      UserError: naming the first one, and what it may be.
    """
    for key, value in values.items():
        if key in CHOICES and value not in CHOICES[key]:
            options = ", ".join(str(o) for o in CHOICES[key] if o is not None)
            raise UserError(f"config.{key}={value!r}: choose one of {options}")
        if key in RANGES and value is not None:
            low, high = RANGES[key]
            if not low <= value <= high or not math.isfinite(value):
                raise UserError(f"config.{key}={value!r}: must be between {low} and {high}")
