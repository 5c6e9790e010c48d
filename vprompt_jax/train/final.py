"""What a run ends with: predictions on test and val, and what they are worth."""

import dataclasses
from typing import Any

import numpy as np

from vprompt_jax.data.dataset import Split
from vprompt_jax.measures.calibration import fitted_temperature
from vprompt_jax.measures.split import measured
from vprompt_jax.measures.table import Predictions
from vprompt_jax.process import finite
from vprompt_jax.train.evaluate import Evaluation, evaluate
from vprompt_jax.train.loop import Outcome
from vprompt_jax.train.step import make_eval_step
from vprompt_jax.train.training import Training
from vprompt_jax.train.validation import batches_of


@dataclasses.dataclass(frozen=True)
class Final:
    """The last evaluations of a run.

    Attributes:
      predictions: of the last step's parameters and of the unadapted CLIP, by split: test, and val
        where there is one.
      metrics: of the last step's on test, by name.
      best_accuracy: on test, of what was best on val; None without val.
      temperature: fitted on val; None without val.
      controls: accuracy on test in the parts' `controls`, by name.
      class_names: of the dataset.
    """

    predictions: dict[str, Predictions]
    metrics: dict[str, float]
    best_accuracy: float | None
    temperature: float | None
    controls: dict[str, float]
    class_names: tuple[str, ...]

    def measures(self, split: str) -> dict[str, Any] | None:
        """What `result.json` says of a split; None if there is none."""
        found = self.predictions.get(split)
        if found is None:
            return None
        return measured(
            found.logits,
            found.labels,
            self.class_names,
            temperature=self.temperature,
            zero_shot=found.zero_shot,
        )


def final(run: Training, outcome: Outcome) -> Final:
    """Evaluates a trained run on test and val.

    Raises:
      UserError: if logits are not finite.
    """
    adaptation, frozen = run.adaptation, run.adaptation.frozen
    bare = make_eval_step(adaptation.zero_shot, {}) if run.has_text else None

    def on(name: str, split: Split, eval_step: Any, params: Any, assigned: Any) -> Evaluation:
        step = eval_step(params, assigned, frozen, run.root)
        with finite.explained(f"the {name} split", [frozen, params], run.remedies):
            return evaluate(step, batches_of(run, split))

    predictions, metrics = {}, {}
    splits = dict(run.dataset.splits())
    for name in ("test", "val"):
        if (split := splits.get(name)) is None:
            continue
        before = None if bare is None else on(name, split, bare, {}, {})
        if before is not None and not (outcome.params or outcome.assigned):
            last = before
        else:
            last = on(name, split, outcome.eval_step, outcome.params, outcome.assigned)
        labels, zero_shot = np.asarray(split.labels), None if before is None else before.logits
        predictions[name] = Predictions(list(split.keys), labels, last.logits, zero_shot)
        metrics[name] = last.metrics
    best_accuracy, temperature = None, None
    if (val := predictions.get("val")) is not None:
        temperature = fitted_temperature(val.logits, val.labels)
        best = metrics["test"]
        if run.steps and outcome.best.step != outcome.step:
            chosen = outcome.best.params, outcome.best.assigned
            best = on("test", run.dataset.test, outcome.eval_step, *chosen).metrics
        best_accuracy = best["accuracy"]
    controls = {}
    for part in run.parts:
        for control, values in part.controls(run.config.parts[part.name]).items():
            eval_step = make_eval_step(adaptation.model, adaptation.weights, values)
            found = on("test", _shuffled(run), eval_step, outcome.params, outcome.assigned)
            controls[control] = found.metrics["accuracy"]
    names = run.dataset.class_names
    return Final(predictions, metrics["test"], best_accuracy, temperature, controls, names)


def _shuffled(run: Training) -> Split:
    """The test split in an order in which each image stands beside images of other classes."""
    test = run.dataset.test
    return test.take(np.random.default_rng(run.config.data.split_seed).permutation(len(test)))
