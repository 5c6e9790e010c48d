"""The training loop: steps, metrics, evaluation on val, saves, a progress line."""

import dataclasses
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from vprompt_jax.data import pipeline
from vprompt_jax.process.errors import Interrupted
from vprompt_jax.train import guard, label_map, metrics, pictures, probe
from vprompt_jax.train.assemble import Run
from vprompt_jax.train.checkpoint import Checkpoints
from vprompt_jax.train.clock import Clock, Trace
from vprompt_jax.train.evaluate import evaluate, mean
from vprompt_jax.train.interrupt import Interrupts
from vprompt_jax.train.step import Sums, TrainState, make_eval_step, make_train_step


@dataclasses.dataclass
class Best:
    """The parameters with the highest accuracy on val so far (the first of equals)."""

    params: Any
    accuracy: float = -1.0
    step: int = 0


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What training leaves behind.

    Attributes:
      params: of the last step.
      best: on val.
      clock: of the steps.
      earlier_seconds: that earlier processes worked on the run, up to the save it goes on from.
      eval_step: compiled once.
    """

    params: Any
    best: Best
    clock: Clock
    earlier_seconds: float
    eval_step: Any


@dataclasses.dataclass
class Progress:
    """Where a run stands: all that a save holds.

    Attributes:
      state, best: arrays.
      pending: sums of the steps since the last line of metrics, or None.
      clock: of the steps.
      seconds: that the run has taken up to the save it was restored from.
    """

    state: TrainState
    best: Best
    pending: Sums | None = None
    clock: Clock = dataclasses.field(default_factory=Clock)
    seconds: float = 0.0


def restore(run: Run, checkpoints: Checkpoints) -> Progress:
    """The newest readable save, or a fresh start."""
    state = run.initial_state()
    best = Best(jax.tree.map(jnp.copy, state.params))
    if checkpoints.latest() is None:
        return Progress(state, best)
    arrays, record = checkpoints.restore({"state": state, "best": best.params})
    arrays = jax.device_put(arrays, pipeline.replicated_sharding())
    best = Best(arrays["best"], record["best"]["accuracy"], record["best"]["step"])
    pending = {name: np.float32(total) for name, total in record["pending"].items()}
    clock = Clock(**record["clock"])
    return Progress(arrays["state"], best, pending or None, clock, record["seconds"])


def _save(checkpoints: Checkpoints, step: int, progress: Progress, since: float) -> None:
    pending = jax.device_get(progress.pending or {})
    record = {
        # Any float goes through JSON and back unchanged. Rounded, the best accuracy would no longer
        # tie with an equal one.
        "best": {"accuracy": progress.best.accuracy, "step": progress.best.step},
        "pending": {name: float(total) for name, total in pending.items()},
        "clock": progress.clock.as_record(),
        "seconds": progress.seconds + time.monotonic() - since,
    }
    checkpoints.save(step, {"state": progress.state, "best": progress.best.params}, record)


def train(run: Run, workdir: Path) -> Outcome:
    """Trains from the newest save in `workdir`, or from the start.

    Wherever it is stopped, going on gives the parameters and metrics of a run that was not.

    Returns:
      The last parameters, the best on val and the evaluation step, compiled once.

    Raises:
      UserError: if too many steps in a row were not finite, or a save cannot be written.
      Interrupted: after SIGTERM, with everything saved.
    """
    since = time.monotonic()
    config = run.config
    eval_step = make_eval_step(run.model)
    if run.steps == 0:
        params = run.initial_state().params
        return Outcome(params, Best(params), Clock(), 0.0, eval_step)
    checkpoints = Checkpoints(workdir / "checkpoints", run.identity)
    at = restore(run, checkpoints)
    start = int(at.state.step)
    checkpoints.forget_after(start)
    writer = metrics.make_writer(workdir, start)
    temperature = run.temperature if run.model.mask is not None else None
    step_fn = make_train_step(
        run.model,
        run.optimizer(),
        temperature,
        augmentation=config.data.augment,
        remat=config.model.remat,
    )
    batches = pipeline.train_batches(
        run.dataset.train,
        batch_size=config.optim.batch_size,
        epochs=config.optim.epochs,
        seed=config.seed,
        start=start,
        workers=config.data.workers,
    )
    bar = tqdm.tqdm(
        total=run.steps,
        initial=start,
        desc=config.method.name,
        unit="step",
        mininterval=0.5 if sys.stderr.isatty() else 15.0,
        disable=jax.process_index() != 0,
    )
    if probe.is_wanted(config) and start < run.steps:
        at.state = probe.solved(run, at.state)
        if run.dataset.val is not None:
            at.best = _validate(run, eval_step, at.state, run.steps, at.best, writer, bar)
        _save(checkpoints, run.steps, at, since)
        start = run.steps
    count_step = label_map.make_count_step(run.model, len(run.dataset.class_names))
    clock, stops = at.clock, False
    trace = Trace(workdir / "profile", start, config.profile)
    with Interrupts() as interrupts, bar:
        for step in range(start + 1, run.steps + 1):
            if label_map.is_due(run, step - 1):
                at.state = label_map.assigned(count_step, run, at.state)
            trace.before(step)
            with clock.waiting(at.state.step):
                batch = pipeline.to_devices(next(batches))
            at.state, sums = step_fn(at.state, run.frozen, run.root, batch)
            at.pending = sums if at.pending is None else jax.tree.map(jnp.add, at.pending, sums)
            if clock.since is not None:
                clock.images += config.optim.batch_size
            bar.update()
            last = step == run.steps
            if step % config.log.every_steps == 0 or last:
                guard.check(run, at.state, checkpoints.latest())
                _log(writer, bar, step, at.pending, run)
                at.pending = None
            evaluates = step % (config.eval.every_epochs * run.steps_per_epoch) == 0 or last
            stops = interrupts.asked(step) and not last
            if evaluates or stops or step % config.checkpoint.every_steps == 0:
                jax.block_until_ready(at.state)
                clock.stop()
                guard.check(run, at.state, checkpoints.latest())
                if evaluates and run.dataset.val is not None:
                    at.best = _validate(run, eval_step, at.state, step, at.best, writer, bar)
                writer.flush()  # a save must not be on the disk before the metrics it follows
                _save(checkpoints, step, at, since)
                clock.start()
            elif clock.since is None:
                jax.block_until_ready(at.state)
                clock.start()
            trace.after(step, at.state, ends=last or stops)
            if stops:
                break
    clock.stop()
    checkpoints.close()
    writer.close()
    if stops:
        raise Interrupted(
            f"stopped by SIGTERM after step {step} of {run.steps}, which is saved in {workdir}; "
            "the same command goes on from there"
        )
    return Outcome(at.state.params, at.best, clock, at.seconds, eval_step)


def _log(writer, bar, step: int, sums: Sums, run: Run) -> None:
    sums = dict(sums)
    skipped = int(sums.pop("skipped"))
    values = mean(sums) | {"skipped_steps": skipped}
    if run.model.mask is not None:
        values["temperature"] = float(run.temperature(jnp.int32(step - 1)))
    writer.write_scalars(step, {f"train/{k}": v for k, v in values.items()})
    note = f", {skipped} steps skipped (not finite)" if skipped else ""
    bar.set_postfix_str(f"loss {values['loss']:.3f}{note}", refresh=False)


def _validate(run: Run, eval_step, state: TrainState, step: int, best: Best, writer, bar) -> Best:
    values = evaluate(eval_step, state.params, run, run.dataset.val)
    writer.write_scalars(step, {f"val/{k}": v for k, v in values.items()})
    if not bar.disable:
        bar.write(f"step {step}: val accuracy {values['accuracy']:.2%}", file=sys.stderr)
        if warning := pictures.collapse(values):
            bar.write(f"step {step}: {warning}", file=sys.stderr)
        if shown := pictures.of_run(run, state.params):
            writer.write_images(step, shown)
    if values["accuracy"] <= best.accuracy:
        return best
    return Best(jax.tree.map(jnp.copy, state.params), values["accuracy"], step)
