"""The training loop: steps, metrics, evaluation on val, saves, a progress line."""

import contextlib
import dataclasses
import functools
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tqdm

from vprompt_jax.data import pipeline
from vprompt_jax.process import parallel
from vprompt_jax.process.errors import Interrupted
from vprompt_jax.train import assignment, guard, metrics, solve
from vprompt_jax.train.checkpoint import Checkpoints
from vprompt_jax.train.clock import Clock, Trace
from vprompt_jax.train.evaluate import mean
from vprompt_jax.train.interrupt import Interrupts
from vprompt_jax.train.progress import Best, Progress, best_of, restore, save
from vprompt_jax.train.step import Sums, TrainState, make_eval_step, make_train_step
from vprompt_jax.train.training import Training
from vprompt_jax.train.validation import Validation, Watch, batches_of


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What training leaves behind.

    Attributes:
      params, assigned: of the last step.
      step: number of the last step: fewer than the run has if `optim.patience` ended it.
      best: on val.
      clock: of the steps.
      earlier_seconds: that earlier processes worked on the run, up to the save it goes on from.
      eval_step: compiled once.
    """

    params: Any
    assigned: Any
    step: int
    best: Best
    clock: Clock
    earlier_seconds: float
    eval_step: Callable[..., Any]


def train(run: Training, workdir: Path, watch: Watch | None = None) -> Outcome:
    """Trains from the newest save in `workdir`, or from the start.

    Wherever it is stopped, going on gives the parameters and metrics of a run that was not.

    Args:
      run: to train.
      workdir: its folder.
      watch: called after each evaluation on val; what it raises ends the run.

    Returns:
      The last parameters, the best on val and the evaluation step, compiled once.

    Raises:
      UserError: if too many steps in a row were not finite, or a save cannot be written.
      Interrupted: after SIGTERM, with everything saved.
    """
    eval_step = make_eval_step(run.adaptation.model, run.adaptation.weights)
    if run.steps == 0 and not run.adaptation.initial_assigned():  # there is nothing to find out
        state = run.initial_state()
        return Outcome(state.params, state.assigned, 0, best_of(state), Clock(), 0.0, eval_step)
    checkpoints = Checkpoints(workdir / "checkpoints", run.identity)
    is_new = checkpoints.latest() is None
    at = restore(run.initial_state(), checkpoints)
    checkpoints.forget_after(int(at.state.step))
    loop = _Loop(run, workdir, at, checkpoints, eval_step, watch)
    closing = contextlib.closing(checkpoints), contextlib.closing(loop.writer)
    with closing[0], closing[1], Interrupts() as interrupts, loop.bar:
        stopped = not at.ended and loop.rest(interrupts, is_new)
    if stopped:
        raise Interrupted(
            f"stopped by SIGTERM after step {int(at.state.step)} of {run.steps}, which is saved in "
            f"{workdir}; the same command goes on from there"
        )
    state = at.state
    return Outcome(
        state.learned, state.assigned, int(state.step), at.best, at.clock, at.seconds, eval_step
    )


def _assigned(run: Training, state: TrainState, step: int) -> TrainState:
    """The state with what is assigned before a step (counted from 0), where that is due."""
    adaptation = run.adaptation
    rule = adaptation.assignment
    if rule is None or not rule.is_due(step, run.steps_per_epoch, run.steps):
        return state
    count = assignment.make_count_step(adaptation.model, adaptation.weights, rule)
    given = state.params, state.assigned, adaptation.frozen, run.root
    images = batches_of(run, dict(run.dataset.splits())[rule.split])
    found = assignment.assigned(rule, functools.partial(count, *given), images)
    return state.replace(assigned={**state.assigned, **found})


class _Loop:
    """The steps of one process, from where the run stands to its end."""

    def __init__(
        self,
        run: Training,
        workdir: Path,
        at: Progress,
        checkpoints: Checkpoints,
        eval_step: Callable[..., Any],
        watch: Watch | None,
    ):
        self.run, self.at, self.checkpoints, self.config = run, at, checkpoints, run.config
        self.since = time.monotonic()
        self.start = int(at.state.step)
        self.writer = metrics.make_writer(workdir, self.start, run.config)
        self.trace = Trace(workdir / "profile", self.start, self.config.profile)
        steps = 0 if run.is_solved else run.steps
        self.bar = tqdm.tqdm(
            total=steps,
            initial=self.start,
            desc=self.config.method.name + (": compiling" if steps else ""),
            unit="step",
            mininterval=0.5 if sys.stderr.isatty() else 15.0,
            disable=jax.process_index() != 0,
        )
        # One program for all of them.
        self.schedules = jax.jit(lambda step: (run.values(step), run.learning_rates(step)))
        self.val = Validation(run, at, eval_step, self.writer, self.bar, watch)

    def rest(self, interrupts: Interrupts, is_new: bool) -> bool:
        """Does what is left to do; returns whether it was asked to stop before the end.

        Args:
          interrupts: asked after every step.
          is_new: whether the run starts here, rather than at a save.
        """
        run = self.run
        if is_new and run.solver():
            self.at.state = solve.started(run, self.at.state)
            self.at.best = best_of(self.at.state)
        if not run.is_solved and run.steps:
            return self._steps(interrupts)
        if is_new:
            self.at.state = _assigned(run, self.at.state, 0)
            self.val.finish(run.steps)
            self.val.evaluate(run.steps)
            self._save(run.steps, ended=True)
        return False

    def _steps(self, interrupts: Interrupts) -> bool:
        """Does the steps that are left; returns whether it was asked to stop before the end."""
        run, at, clock, config = self.run, self.at, self.at.clock, self.config
        if self.val.has_waited(self.start):
            return False
        step_fn = make_train_step(
            run.adaptation.model,
            run.optimizer(),
            run.values,
            weights=run.adaptation.weights,
            augmentation=config.data.augment,
            remat=config.model.remat,
            class_weights=run.class_weights,
            label_smoothing=config.optim.label_smoothing,
            parts=config.optim.parts,
        )
        batches = pipeline.train_batches(
            run.dataset.train,
            batch_size=config.optim.batch_size,
            epochs=config.optim.epochs,
            seed=config.seed,
            start=self.start,
            workers=config.data.workers,
            parts=config.optim.parts,
        )
        for step in range(self.start + 1, run.steps + 1):
            at.state = _assigned(run, at.state, step - 1)
            self.trace.before(step)
            with clock.waiting(at.state.step):
                batch = parallel.to_devices(next(batches))
            at.state, sums = step_fn(at.state, run.adaptation.frozen, run.root, batch)
            at.pending = sums if at.pending is None else parallel.added(at.pending, sums)
            if clock.since is not None:
                clock.images += config.optim.batch_size
            self.bar.update()
            last = step == run.steps
            if step % config.log.every_steps == 0 or last:
                self._check()
                self._log(step)
            evaluates = step % (config.eval.every_epochs * run.steps_per_epoch) == 0 or last
            stops = interrupts.asked(step) and not last
            if evaluates or stops or step % config.checkpoint.every_steps == 0:
                jax.block_until_ready(at.state)
                clock.stop()
                self._check()
                if evaluates:
                    self.val.evaluate(step)
                waited = self.val.has_waited(step)
                if last or waited:
                    self.val.finish(step)
                self._save(step, ended=last or waited)
                clock.start()
            elif clock.since is None:
                jax.block_until_ready(at.state)
                clock.start()
            if step == self.start + 1:
                self._is_compiled(sums)
            self.trace.after(step, at.state, ends=last or stops)
            if stops:
                clock.stop()
                return True
            if at.ended and not last:
                if at.pending is not None:
                    self._log(step)
                self.bar.write(
                    f"step {step} of {run.steps}: val was not better for {config.optim.patience} "
                    "evaluations, the run ends",
                    file=sys.stderr,
                )
                break
        clock.stop()
        return False

    def _save(self, step: int, *, ended: bool) -> None:
        """Saves where the run stands, after the metrics: no save may be on the disk before them."""
        self.at.ended = ended
        self.writer.flush()
        save(self.checkpoints, step, self.at, self.since)

    def _is_compiled(self, sums: Sums) -> None:
        """Shows the first step's metrics, and has the bar's rate and time left begin here."""
        self.bar.set_description_str(self.config.method.name, refresh=False)
        self.bar.initial = self.bar.n
        self.bar.start_t = self.bar.last_print_t = time.time()
        self._show(mean(sums))

    def _show(self, values: Mapping[str, float], note: str = "") -> None:
        """Puts loss and accuracy beside the bar."""
        text = f"loss {values['loss']:.3f}, accuracy {values['accuracy']:.1%}{note}"
        self.bar.set_postfix_str(text, refresh=False)

    def _check(self) -> None:
        """Ends a run whose steps are not finite; waits for the device, which reads the state."""
        state, limit = self.at.state, self.config.optim.max_bad_steps
        # A run shorter than the limit has learned nothing if all of its steps were undone.
        if int(state.bad_steps) < min(limit, self.run.steps):
            return
        values, rates = self._scheduled(int(state.step) - 1)
        raise guard.failure(
            state,
            limit,
            self.checkpoints.latest(),
            rates=rates,
            values=values,
            remedies=[remedy for part in self.run.parts for remedy in part.remedies()],
            frozen=self.run.adaptation.frozen,
        )

    def _scheduled(self, step: int) -> tuple[dict[str, float], dict[str, float]]:
        """Values and learning rates by name that the schedules give at a step (counted from 0)."""
        values, rates = jax.device_get(self.schedules(np.int32(step)))
        named = {name: float(rates[name]) for name in self.config.trained}  # in the config's order
        return {name: float(value) for name, value in values.items()}, named

    def _log(self, step: int) -> None:
        """Writes a line of metrics over the steps since the last one."""
        sums = dict(self.at.pending or {})
        self.at.pending = None
        skipped = int(sums.pop("skipped"))
        scheduled, rates = self._scheduled(step - 1)
        values = mean(sums) | {"skipped_steps": skipped} | scheduled
        values |= {f"learning_rate/{part}": rate for part, rate in rates.items()}
        self.writer.write_scalars(step, {f"train/{k}": v for k, v in values.items()})
        note = f", {skipped} steps skipped (not finite)" if skipped else ""
        self._show(values, note)
