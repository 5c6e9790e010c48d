"""Datasets as arrays of uint8 images, and the order in which a run sees them."""

from vprompt_jax.data.load import load, prepare

__all__ = ["load", "prepare"]
