"""Steps whose numbers are not finite change nothing, and too many of them in a row end the run."""

import jax
import jax.numpy as jnp
import optax

from vprompt_jax.process.errors import UserError


def keep_finite(before, after, sums):
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

    def choose(new, old):
        counts = jnp.issubdtype(jnp.result_type(new), jnp.integer)
        return new if counts else jnp.where(good, new, old)

    state = after.replace(
        params=jax.tree.map(choose, after.params, before.params),
        opt_state=jax.tree.map(choose, after.opt_state, before.opt_state),
        bad_steps=jnp.where(good, 0, before.bad_steps + 1),
    )
    sums = {name: jnp.where(good, total, 0.0) for name, total in sums.items()}
    return state, {**sums, "skipped": jnp.where(good, 0.0, 1.0)}


def check(run, state, saved: int | None) -> None:
    """Ends a run that has met `optim.max_bad_steps` steps in a row that were not finite.

    Reads the state, so it waits for the device: to be called where something else does as well.

    Args:
      run: of the state.
      state: as `keep_finite` leaves it.
      saved: step of the newest save, or None.

    Raises:
      UserError: with learning rates, temperature and gradient norms.
    """
    bad = int(state.bad_steps)
    if bad < run.config.optim.max_bad_steps:
        return
    step = int(state.step)
    rates = run.learning_rates(step - 1)
    parts = [
        f"{part}: learning rate {float(rate):.4g}, gradient norm "
        f"{float(state.gradient_norms[part]):.4g}"
        for part, rate in rates.items()
    ]
    ways_out = [f"lower {' or '.join(f'config.{part}.learning_rate' for part in rates)}"]
    ways_out.append("lengthen the warm-up (config.optim.warmup_steps)")
    if run.model.mask is not None:
        parts.append(f"temperature {float(run.temperature(jnp.int32(step - 1))):.4g}")
        ways_out.append("raise config.mask.temperature_min")
    listed = "\n  ".join(parts)
    kept = (
        "there is no checkpoint yet" if saved is None else f"the checkpoint of step {saved} is good"
    )
    raise UserError(
        f"{bad} steps in a row up to step {step} had a loss, gradient or update that is not finite "
        f"(config.optim.max_bad_steps={run.config.optim.max_bad_steps}):\n  {listed}\n"
        f"{', '.join(ways_out)}; no such step was applied, {kept}"
    )
