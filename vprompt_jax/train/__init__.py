"""One state, one step, one evaluation, one loop; no method is named here."""

from vprompt_jax.train.run import fit

__all__ = ["fit"]
