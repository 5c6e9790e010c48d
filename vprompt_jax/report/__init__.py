"""Tables and figures of finished runs: accuracy over prompt size, prompted images and masks."""

from vprompt_jax.report.write import write

__all__ = ["write"]
