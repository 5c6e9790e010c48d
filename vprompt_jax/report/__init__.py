"""Tables, figures and a page of finished runs."""

from vprompt_jax.report.write import write

__all__ = ["write"]
