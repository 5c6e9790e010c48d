"""The parts there are, and the methods that are made of them."""

from vprompt_jax.methods.registry import PARTS, register
from vprompt_jax.methods.table import METHODS, Method, lookup, row

__all__ = ["METHODS", "PARTS", "Method", "lookup", "register", "row"]
