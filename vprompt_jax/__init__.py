"""vprompt_jax: visual prompts for a frozen CLIP, in JAX."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vprompt_jax import clip, data
    from vprompt_jax.config import default_config
    from vprompt_jax.export.files import load_either as load
    from vprompt_jax.inference.adapted import fit

__version__ = "0.2.0.dev0"
__all__ = ["clip", "data", "default_config", "fit", "load"]

# JAX takes a second to import and training takes more: each is imported when it is asked for.
_LAZY = {
    "default_config": ("vprompt_jax.config", "default_config"),
    "fit": ("vprompt_jax.inference.adapted", "fit"),
    "load": ("vprompt_jax.export.files", "load_either"),
}


def __getattr__(name: str) -> Any:
    if name in ("clip", "data"):
        return importlib.import_module(f"vprompt_jax.{name}")
    if name in _LAZY:
        module, own = _LAZY[name]
        return getattr(importlib.import_module(module), own)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
