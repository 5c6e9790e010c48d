"""Where a run stands, and how that is saved and restored."""

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from vprompt_jax.process import parallel
from vprompt_jax.process.errors import UserError
from vprompt_jax.train.checkpoint import Checkpoints
from vprompt_jax.train.clock import Clock
from vprompt_jax.train.step import Sums, TrainState


@dataclasses.dataclass
class Best:
    """What had the highest accuracy on val so far (the first of equals).

    Attributes:
      params, assigned: of the state at that time.
      accuracy: on val; -1 before the first evaluation.
      step: number of updates done then.
    """

    params: Any
    assigned: Any
    accuracy: float = -1.0
    step: int = 0


def best_of(state: TrainState, accuracy: float = -1.0, step: int = 0) -> Best:
    """A copy of what a state has learned."""
    params, assigned = jax.tree.map(jnp.copy, (state.learned, state.assigned))
    return Best(params, assigned, accuracy, step)


@dataclasses.dataclass
class Progress:
    """Where a run stands: all that a save holds.

    Attributes:
      state, best: arrays.
      pending: sums of the steps since the last line of metrics, or None.
      clock: of the steps.
      seconds: that the run has taken up to the save it was restored from.
      ended: whether there is nothing left to do.
    """

    state: TrainState
    best: Best
    pending: Sums | None = None
    clock: Clock = dataclasses.field(default_factory=Clock)
    seconds: float = 0.0
    ended: bool = False


class _SavedState(flax.struct.PyTreeNode):
    """A `TrainState` without what is assigned: most runs have nothing there, and Orbax restores no
    save whose tree lacks an empty branch."""

    step: jax.Array
    params: Any
    opt_state: Any
    bad_steps: jax.Array
    gradient_norms: Any


def _arrays(state: TrainState, best: Best) -> dict[str, Any]:
    """The tree that a save holds."""
    fields = {field.name: getattr(state, field.name) for field in dataclasses.fields(_SavedState)}
    arrays = {"state": _SavedState(**fields), "best": best.params}
    if state.assigned:
        arrays |= {"assigned": state.assigned, "best_assigned": best.assigned}
    return arrays


def restore(state: TrainState, checkpoints: Checkpoints) -> Progress:
    """The newest readable save, or a fresh start.

    Args:
      state: the initial one.
      checkpoints: of the run.

    Raises:
      UserError: if there are saves and none can be read.
    """
    best = best_of(state)
    if checkpoints.latest() is None:
        return Progress(state, best)
    try:
        arrays, record = checkpoints.restore(_arrays(state, best))
    except UserError as error:
        if state.assigned and "do not match" in str(error):
            raise UserError(
                f"{error}: vprompt_jax 0.1 kept a label map among the parameters, which this "
                "version does not read: train the run again"
            ) from error
        raise
    arrays = jax.device_put(arrays, parallel.replicated())
    saved = arrays["state"]
    fields = {field.name: getattr(saved, field.name) for field in dataclasses.fields(saved)}
    restored = TrainState(**fields, assigned=arrays.get("assigned", {}))
    kept = record["best"]
    best = Best(arrays["best"], arrays.get("best_assigned", {}), kept["accuracy"], kept["step"])
    pending = {name: jnp.float32(total) for name, total in record["pending"].items()}
    clock = Clock(**record["clock"])
    ended = record.get("ended", False)  # absent in saves of earlier versions
    return Progress(restored, best, pending or None, clock, record["seconds"], ended)


def save(checkpoints: Checkpoints, step: int, progress: Progress, since: float) -> None:
    """Saves where a run stands.

    Args:
      checkpoints: of the run.
      step: number of updates done.
      progress: where it stands.
      since: `time.monotonic()` when this process took it up.

    Raises:
      UserError: if the save cannot be written.
    """
    pending = jax.device_get(progress.pending or {})
    record = {
        # Any float goes through JSON and back unchanged. Rounded, the best accuracy would no longer
        # tie with an equal one.
        "best": {"accuracy": progress.best.accuracy, "step": progress.best.step},
        "pending": {name: float(total) for name, total in pending.items()},
        "clock": progress.clock.as_record(),
        "seconds": progress.seconds + time.monotonic() - since,
        "ended": progress.ended,
    }
    checkpoints.save(step, _arrays(progress.state, progress.best), record)


def latest_params(
    initial: TrainState, checkpoints: Checkpoints, *, best: bool
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Parameters and assigned arrays of a finished run.

    Args:
      initial: a state of the run's structure.
      checkpoints: of the run, with at least one save.
      best: those best on val, in place of the last step's.

    Raises:
      UserError: if no save can be read.
    """
    at = restore(initial, checkpoints)
    return (at.best.params, at.best.assigned) if best else (at.state.learned, at.state.assigned)
