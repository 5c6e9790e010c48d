"""The training loop: steps, metrics, evaluation on val, saves, a progress line."""

import dataclasses
import math
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import tqdm

from vprompt_jax.data import pipeline
from vprompt_jax.errors import UserError
from vprompt_jax.train import metrics
from vprompt_jax.train.assemble import Run
from vprompt_jax.train.checkpoint import Checkpoints
from vprompt_jax.train.evaluate import evaluate, mean
from vprompt_jax.train.step import TrainState, make_eval_step, make_train_step


@dataclasses.dataclass
class Best:
    """The parameters with the highest accuracy on val so far (the first of equals)."""

    params: Any
    accuracy: float = -1.0
    step: int = 0

    def as_tree(self) -> dict[str, Any]:
        return {
            "params": self.params,
            "accuracy": jnp.float32(self.accuracy),
            "step": jnp.int32(self.step),
        }


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What training leaves behind."""

    params: Any
    best: Best
    images_per_second: float | None  # None if too few steps ran to measure
    eval_step: Any


class _Clock:
    """Time spent in steps alone, without the first one, which compiles."""

    def __init__(self):
        self.seconds, self.images, self._since = 0.0, 0, None

    def start(self):
        self._since = time.monotonic()

    def stop(self):
        if self._since is not None:
            self.seconds += time.monotonic() - self._since
        self._since = None


def restore(run: Run, checkpoints: Checkpoints) -> tuple[TrainState, Best]:
    """The newest saved state, or a fresh one."""
    state = run.initial_state()
    best = Best(jax.tree.map(jnp.copy, state.params))
    if checkpoints.latest() is not None:
        saved = checkpoints.restore({"state": state, "best": best.as_tree()})
        state = saved["state"]
        best = Best(
            saved["best"]["params"], float(saved["best"]["accuracy"]), int(saved["best"]["step"])
        )
    return state, best


def train(run: Run, workdir: Path) -> Outcome:
    """Trains from the newest save in `workdir`, or from the start.

    Returns:
      The last parameters, the best on val and the evaluation step, compiled once.

    Raises:
      UserError: if the loss is no longer finite.
    """
    config = run.config
    eval_step = make_eval_step(run.model)
    if run.steps == 0:
        params = run.initial_params()
        return Outcome(params, Best(params), None, eval_step)
    checkpoints = Checkpoints(workdir / "checkpoints")
    state, best = restore(run, checkpoints)
    start = int(state.step)
    writer = metrics.make_writer(workdir, start)
    temperature = run.temperature if run.model.mask is not None else None
    step_fn = make_train_step(run.model, run.optimizer(), temperature, config.data.augment)
    batches = pipeline.train_batches(
        run.dataset.train,
        batch_size=config.optim.batch_size,
        epochs=config.optim.epochs,
        seed=config.seed,
        start=start,
        workers=config.data.workers,
    )
    progress = tqdm.tqdm(
        total=run.steps,
        initial=start,
        desc=config.method.name,
        unit="step",
        mininterval=0.5 if sys.stderr.isatty() else 15.0,
        disable=jax.process_index() != 0,
    )
    clock, pending = _Clock(), None
    for step in range(start + 1, run.steps + 1):
        state, sums = step_fn(state, run.frozen, run.root, pipeline.to_devices(next(batches)))
        pending = sums if pending is None else jax.tree.map(jnp.add, pending, sums)
        clock.images += config.optim.batch_size
        last = step == run.steps
        if step % config.log.every_steps == 0 or last:
            _log(writer, progress, step, pending, run)
            pending = None
        progress.update()
        if step % (config.eval.every_epochs * run.steps_per_epoch) == 0 or last:
            jax.block_until_ready(state)
            clock.stop()
            if run.dataset.val is not None:
                best = _validate(run, eval_step, state, step, best, writer, progress)
            checkpoints.save(step, {"state": state, "best": best.as_tree()})
            clock.start()
        elif step == start + 1:
            jax.block_until_ready(state)
            clock.images = 0
            clock.start()
    clock.stop()
    progress.close()
    checkpoints.close()
    writer.close()
    rate = clock.images / clock.seconds if clock.images and clock.seconds > 0 else None
    return Outcome(state.params, best, rate, eval_step)


def _log(writer, progress, step: int, sums, run: Run) -> None:
    values = mean(sums)
    if not math.isfinite(values["loss"]):
        raise UserError(
            f"the loss is {values['loss']} at step {step}: lower the learning rate "
            "(config.prompt.learning_rate, config.mask.learning_rate, config.head.learning_rate) "
            "or lengthen the warm-up"
        )
    if run.model.mask is not None:
        values["temperature"] = float(run.temperature(jnp.int32(step - 1)))
    writer.write_scalars(step, {f"train/{k}": v for k, v in values.items()})
    progress.set_postfix_str(f"loss {values['loss']:.3f}", refresh=False)


def _validate(run: Run, eval_step, state: TrainState, step: int, best: Best, writer, progress):
    values = evaluate(eval_step, state.params, run, run.dataset.val)
    writer.write_scalars(step, {f"val/{k}": v for k, v in values.items()})
    progress.write(f"step {step}: val accuracy {values['accuracy']:.2%}", file=sys.stderr)
    if values["accuracy"] <= best.accuracy:
        return best
    return Best(jax.tree.map(jnp.copy, state.params), values["accuracy"], step)
