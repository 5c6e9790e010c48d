"""Explicit random keys: root -> purpose -> step -> index of the example.

A key depends on nothing else. So an example gets the same noise at the same step however many
devices share the batch, and a resumed run needs no key in its checkpoint.
"""

import zlib

import jax


def root(seed: int) -> jax.Array:
    """The key from which every other key of a run derives."""
    return jax.random.key(seed, impl="threefry2x32")


def stream(key: jax.Array, purpose: str) -> jax.Array:
    """The key of one purpose ("init", "noise", "place", ...) from the root key."""
    return jax.random.fold_in(key, zlib.crc32(purpose.encode()))


def per_example(key: jax.Array, index: jax.Array) -> jax.Array:
    """Keys [B] of the examples whose indices in their split are int32 [B]."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, index)
