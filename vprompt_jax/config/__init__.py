"""The configuration: its keys, defaults and checks, and the runs of a sweep."""

from vprompt_jax.config.config import Config, difference
from vprompt_jax.config.resolve import default_config, resolve
from vprompt_jax.config.sweep import grid

__all__ = ["Config", "default_config", "difference", "grid", "resolve"]
