"""What a run does on its val split: evaluations, the best so far, and a solver's last choice."""

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

import tqdm

from vprompt_jax.data.dataset import Split
from vprompt_jax.process import finite
from vprompt_jax.train import pictures, solve
from vprompt_jax.train.evaluate import evaluate, placed_batches
from vprompt_jax.train.metrics import Writer
from vprompt_jax.train.progress import Progress, best_of
from vprompt_jax.train.training import Training

Watch = Callable[[int, float], None]  # step and accuracy on val


def batches_of(run: Training, split: Split) -> Any:
    """One pass over a split, in the run's batches for evaluation."""
    return placed_batches(split, run.config.eval.batch_size, run.config.data.workers)


class Validation:
    """Evaluates a run on val, where there is one, and keeps what is best there."""

    def __init__(
        self,
        run: Training,
        at: Progress,
        eval_step: Callable[..., Any],
        writer: Writer,
        bar: "tqdm.tqdm[Any]",
        watch: Watch | None = None,
    ):
        self.run, self.at, self.eval_step = run, at, eval_step
        self.writer, self.bar, self.watch = writer, bar, watch

    def evaluate(self, step: int) -> None:
        """Evaluates the state after a step, and keeps it if it is the best so far."""
        state, val = self.at.state, self.run.dataset.val
        if val is None:
            return
        values = self._metrics(val, state.learned, state.assigned)
        self.writer.write_scalars(step, {f"val/{k}": v for k, v in values.items()})
        if not self.bar.disable:
            self._tell(step, values, val)
        if values["accuracy"] > self.at.best.accuracy:
            self.at.best = best_of(state, values["accuracy"], step)
        if self.watch is not None:
            self.watch(step, float(values["accuracy"]))

    def has_waited(self, step: int) -> bool:
        """Whether val has not become better for as many evaluations as the config waits."""
        patience = self.run.config.optim.patience
        if patience is None or self.run.dataset.val is None:
            return False
        between = self.run.config.eval.every_epochs * self.run.steps_per_epoch
        return step - self.at.best.step >= patience * between and step < self.run.steps

    def finish(self, step: int) -> None:
        """Has the part's solver choose on val, for the last parameters and for the best.

        The best are then those of the two that are better with what was chosen for them.
        """
        at, val = self.at, self.run.dataset.val
        if val is None or self.run.solver() is None:
            return
        learned = at.state.learned
        assigned = solve.finished(self.run, learned, at.state.assigned)
        at.state = at.state.replace(assigned=assigned)
        if self.run.is_solved or not self.run.steps:
            return
        accuracy, best = self._metrics(val, learned, assigned)["accuracy"], at.best
        if best.step != step:
            chosen = solve.finished(self.run, best.params, best.assigned)
            reached = self._metrics(val, best.params, chosen)["accuracy"]
            at.best = dataclasses.replace(best, assigned=chosen, accuracy=reached)
        if best.step == step or accuracy > at.best.accuracy:
            at.best = best_of(at.state, accuracy, step)
        if not self.bar.disable:
            self.bar.write(f"chosen on val: accuracy {at.best.accuracy:.2%}", file=sys.stderr)

    def _metrics(self, val: Split, params: Any, assigned: Any) -> dict[str, Any]:
        frozen = self.run.adaptation.frozen
        on_batch = self.eval_step(params, assigned, frozen, self.run.root)
        with finite.explained("the val split", [frozen, params], self.run.remedies):
            return evaluate(on_batch, batches_of(self.run, val)).metrics

    def _tell(self, step: int, values: dict[str, Any], val: Split) -> None:
        """Says on the terminal, and shows in TensorBoard, how an evaluation went."""
        self.bar.write(f"step {step}: val accuracy {values['accuracy']:.2%}", file=sys.stderr)
        for part in self.run.parts:
            if warning := part.warning(values):
                self.bar.write(f"step {step}: {warning}", file=sys.stderr)
        state, adaptation = self.at.state, self.run.adaptation
        if val.content == "image":
            variables = adaptation.variables(state.learned, state.assigned)
            if shown := pictures.of_pixels(adaptation, variables, val, self.run.root):
                self.writer.write_images(step, shown)
