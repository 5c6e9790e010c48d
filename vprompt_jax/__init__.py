"""vprompt_jax: visual prompts for a frozen CLIP, in JAX."""

from vprompt_jax import clip

__version__ = "0.1.0"
__all__ = ["clip"]
