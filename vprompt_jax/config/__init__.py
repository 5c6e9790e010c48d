"""The configuration: its keys, defaults and checks."""

from vprompt_jax.config.resolve import as_json, default_config, difference, fingerprint, resolve
from vprompt_jax.config.sweep import grid

__all__ = ["as_json", "default_config", "difference", "fingerprint", "grid", "resolve"]
