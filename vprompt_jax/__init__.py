"""vprompt_jax: visual prompts for a frozen CLIP, in JAX."""

import importlib
from typing import Any

from vprompt_jax import clip

__version__ = "0.2.0.dev0"
__all__ = ["clip", "data", "default_config", "fit", "load"]

# Training imports TensorFlow (for TensorBoard), which takes seconds: only when it is asked for.
_LAZY = {
    "default_config": "vprompt_jax.config",
    "fit": "vprompt_jax.inference.adapted",
    "load": "vprompt_jax.inference.adapted",
}


def __getattr__(name: str) -> Any:
    if name == "data":
        return importlib.import_module("vprompt_jax.data")
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
