"""SGD or AdamW with a learning rate per trained part, and an average of the parameters."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from vprompt_jax.schema import Optimizer


def schedule(learning_rate: float, warmup: int, steps: int) -> optax.Schedule:
    """VP's schedule: lr (s+1)/W for s < W, then lr/2 (1 + cos(pi (s-W) / (S-W))).

    Args:
      learning_rate: peak lr.
      warmup: W; 0 starts at the peak.
      steps: S. Where W >= S, the whole run is warm-up.
    """
    decay = optax.cosine_decay_schedule(learning_rate, max(steps - warmup, 1))
    if warmup == 0:
        return decay
    rise = optax.linear_schedule(learning_rate / warmup, learning_rate, max(warmup - 1, 1))
    return optax.join_schedules([rise, decay], [warmup])


def rule(
    name: Optimizer, rates: optax.Schedule, momentum: float, weight_decay: float
) -> optax.GradientTransformation:
    """The optimiser of one part.

    Args:
      name: "sgd" or "adamw".
      rates: learning rate by step.
      momentum: SGD momentum.
      weight_decay: for SGD an L2 term added to the gradient, as torch's does; for AdamW decoupled.
    """
    if name == "adamw":
        return optax.adamw(rates, weight_decay=weight_decay)
    sgd = optax.sgd(rates, momentum)
    return optax.chain(optax.add_decayed_weights(weight_decay), sgd)


class _Average(NamedTuple):
    """State of `averaging`: the optimiser's own, the number of updates, the sum of the weights that
    updates had, and the average."""

    inner: Any
    updates: jax.Array
    weight: jax.Array
    average: Any


# The share of the average that stays at an update, and the new sum of weights: of the number n of
# updates with this one, float32, and the sum of the weights before it.
Averaged = Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


def moving(decay: float) -> Averaged:
    """A moving average: d = min(decay, (1 + n) / (10 + n)) of it stays, so that it soon forgets the
    start."""
    return lambda n, weight: (jnp.minimum(decay, (1 + n) / (10 + n)), weight)


def gaussian(mean: float, width: float, steps: int) -> Averaged:
    """The mean over all updates, weighted by exp(-((n / S - mean) / width)^2 / 2).

    So PromptSRC (arXiv 2307.06948) averages the parameters at the ends of epochs; here all updates
    count, so that a run of few epochs has an average, too.

    Args:
      mean, width: shares of the run.
      steps: S.
    """

    def averaged(n: jax.Array, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
        far = (n / steps - mean) / width
        own = jnp.maximum(jnp.exp(-(far**2) / 2), 1e-30)  # far from the mean it would be 0
        return weight / (weight + own), weight + own

    return averaged


def averaging(optimizer: optax.GradientTransformation, averaged: Averaged) -> Any:
    """The optimiser, which also keeps an average of the parameters.

    The average is a <- d a + (1 - d) p after each update, from a = p at the start, with d as
    `averaged` says.
    """

    def init(params: Any) -> _Average:
        none = jnp.zeros((), jnp.float32)
        return _Average(optimizer.init(params), jnp.zeros((), jnp.int32), none, params)

    def update(gradient: Any, state: _Average, params: Any = None) -> tuple[Any, _Average]:
        updates, inner = optimizer.update(gradient, state.inner, params)
        done = state.updates + 1
        kept, weight = averaged(done.astype(jnp.float32), state.weight)
        average = jax.tree.map(
            lambda a, p, u: kept * a + (1 - kept) * (p + u), state.average, params, updates
        )
        return updates, _Average(inner, done, weight, average)

    return optax.GradientTransformation(init, update)


def learned(params: Any, opt_state: Any) -> Any:
    """The parameters to evaluate and keep: their average, where one is kept."""
    return opt_state.average if isinstance(opt_state, _Average) else params


def by_part(rules: Mapping[str, optax.GradientTransformation]) -> optax.GradientTransformation:
    """One optimiser for a tree whose top level names the parts."""
    return optax.multi_transform(dict(rules), lambda tree: {part: part for part in tree})
