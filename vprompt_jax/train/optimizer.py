"""SGD or AdamW with a learning rate per trained part."""

from collections.abc import Mapping

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


def by_part(rules: Mapping[str, optax.GradientTransformation]) -> optax.GradientTransformation:
    """One optimiser for a tree whose top level names the parts."""
    return optax.multi_transform(dict(rules), lambda tree: {part: part for part in tree})
