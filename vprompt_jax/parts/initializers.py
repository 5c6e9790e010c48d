"""Initialisers of trained parameters that several parts share."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def uniform_within(bound: float) -> Callable[..., jax.Array]:
    """An initialiser (key, shape) -> float32 from U(-bound, bound)."""

    def uniform(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return jax.random.uniform(key, shape, jnp.float32, -bound, bound)

    return uniform
