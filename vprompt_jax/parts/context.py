"""The context: the random keys and scheduled values that a part may use."""

from collections.abc import Mapping

import flax.struct
import jax
import jax.numpy as jnp

from vprompt_jax.parts import keys


class Context(flax.struct.PyTreeNode):
    """The place of a batch in a run.

    A key depends on the root key, a purpose, the step and, if it is an example's, on the index of
    that example in its split. So an example's noise does not depend on how many devices share the
    batch, and a resumed run needs no key in its checkpoint.

    Attributes:
      root: the run's root key.
      index: int32 [B], the examples' indices in their split, -1 for padding.
      step: int32 scalar in training, None at inference.
      values: float32 scalars by name, as the parts' schedules give them; at
        inference {}, or a part's `controls`.
    """

    root: jax.Array
    index: jax.Array
    step: jax.Array | None = None
    values: Mapping[str, jax.Array] = flax.struct.field(default_factory=dict)

    @property
    def is_training(self) -> bool:
        return self.step is not None

    def step_key(self, purpose: str) -> jax.Array:
        """A key for the whole batch of this training step."""
        assert self.step is not None, "there is no step at inference"
        return jax.random.fold_in(keys.stream(self.root, purpose), self.step)

    def example_keys(self, purpose: str) -> jax.Array:
        """Keys [B], one per example: new at every training step, always the same at inference."""
        key = keys.stream(self.root, purpose) if self.step is None else self.step_key(purpose)
        return keys.per_example(key, self.index)


def at_inference(seed: int, count: int = 1) -> Context:
    """The context of images outside any split; each is treated as a split's first example.

    Args:
      seed: the run's seed.
      count: number of indices; one index serves batches of every size.
    """
    return Context(keys.root(seed), jnp.zeros(count, jnp.int32))
