"""Tests of vprompt_jax.texts."""
