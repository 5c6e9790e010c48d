"""Steps whose numbers are not finite change nothing, and too many of them in a row end the run."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vprompt_jax.process import finite
from vprompt_jax.process.errors import Diverged, UserError


def keep_finite(
    before: Any, after: Any, sums: Mapping[str, jax.Array]
) -> tuple[Any, dict[str, jax.Array]]:
    """Undoes a step whose loss, gradient or new parameters are not finite; runs inside the step.

    The step number goes on, and so do integer counts of the optimiser: the position in the data
    and in the learning rate's schedule is the step number. A norm that overflows float32 (over
    1.8e19) counts as not finite.

    Args:
      before, after: `TrainState` before and after the update; `after.bad_steps` is overwritten.
      sums: of the step, with "loss" and "gradient_norm".

    Returns:
      The state to go on with, and the sums: all 0 for an undone step but for "skipped", which is
      1 then and 0 else.
    """
    good = (
        jnp.isfinite(sums["loss"])
        & jnp.isfinite(sums["gradient_norm"])
        & jnp.isfinite(optax.tree.norm(after.params))
    )

    def choose(new: jax.Array, old: jax.Array) -> jax.Array:
        counts = jnp.issubdtype(jnp.result_type(new), jnp.integer)
        return new if counts else jnp.where(good, new, old)

    state = after.replace(
        params=jax.tree.map(choose, after.params, before.params),
        opt_state=jax.tree.map(choose, after.opt_state, before.opt_state),
        bad_steps=jnp.where(good, 0, before.bad_steps + 1),
    )
    kept = {name: jnp.where(good, total, 0.0) for name, total in sums.items()}
    return state, {**kept, "skipped": jnp.where(good, 0.0, 1.0)}


def failure(
    state: Any,
    limit: int,
    saved: int | None,
    *,
    rates: Mapping[str, float],
    values: Mapping[str, float],
    remedies: Iterable[str],
    frozen: Any = None,
) -> UserError:
    """What a run ends with that has met too many steps in a row that were not finite.

    Args:
      state: as `keep_finite` leaves it.
      limit: `optim.max_bad_steps`.
      saved: step of the newest save, or None.
      rates: learning rates of the last step, by part.
      values: scheduled values of the last step, by name.
      remedies: what can be changed beside the learning rates and the warm-up.
      frozen: the frozen weights; where they are not finite, nothing else is to blame.
    """
    parts = [
        f"{part}: learning rate {rate:.4g}, gradient norm {float(state.gradient_norms[part]):.4g}"
        for part, rate in rates.items()
    ]
    parts += [f"{name} {value:.4g}" for name, value in values.items()]
    lowered = " or ".join(f"config.{part}.learning_rate" for part in rates)
    ways_out = [f"lower {lowered}", "lengthen the warm-up (config.optim.warmup_steps)", *remedies]
    advice = ", ".join(ways_out)
    kind: type[UserError] = Diverged
    if finite.not_finite(frozen):
        kind = UserError
        advice = finite.cause(frozen)
    count, step = int(state.bad_steps), int(state.step)
    which = f"{count} steps in a row up to step {step}"
    if count < limit:
        which = f"all {count} steps of the run"
    listed = "\n  ".join(parts)
    kept = (
        "there is no checkpoint yet" if saved is None else f"the checkpoint of step {saved} is good"
    )
    return kind(
        f"{which} had a loss, gradient or update that is not finite "
        f"(config.optim.max_bad_steps={limit}):\n  {listed}\n{advice}; no such step was applied, "
        f"{kept}"
    )
