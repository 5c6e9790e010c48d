"""What a run ends with: predictions on test and val, and what they are worth."""

import dataclasses
from typing import Any

import numpy as np

from vprompt_jax.data.dataset import Split
from vprompt_jax.measures.calibration import fitted_temperature
from vprompt_jax.measures.split import measured
from vprompt_jax.measures.table import Predictions
from vprompt_jax.process import finite
from vprompt_jax.train.evaluate import Evaluation, Step, evaluate_all
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
    test, val = run.dataset.test, run.dataset.val

    def given(eval_step: Any, params: Any, assigned: Any) -> Step:
        step: Step = eval_step(params, assigned, frozen, run.root)
        return step

    def on(name: str, split: Split, steps: list[Step]) -> list[Evaluation]:
        weights = [frozen, outcome.params, outcome.best.params]
        with finite.explained(f"the {name} split", weights, run.remedies):
            return evaluate_all(steps, batches_of(run, split))

    steps = []
    if run.has_text:
        steps.append(given(make_eval_step(adaptation.zero_shot, {}), {}, {}))
    if outcome.params or outcome.assigned or not steps:  # else the zero-shot CLIP is the last
        steps.append(given(outcome.eval_step, outcome.params, outcome.assigned))
    best = []
    if val is not None and run.steps and outcome.best.step != outcome.step:
        chosen = outcome.best.params, outcome.best.assigned
        best.append(given(outcome.eval_step, *chosen))
    on_test = on("test", test, [*steps, *best])
    last = len(steps) - 1
    predictions = {"test": _predictions(run, test, on_test[0], on_test[last])}
    best_accuracy, temperature = None, None
    if val is not None:
        on_val = on("val", val, steps)
        predictions["val"] = _predictions(run, val, on_val[0], on_val[last])
        temperature = fitted_temperature(on_val[last].logits, predictions["val"].labels)
        best_accuracy = on_test[-1].metrics["accuracy"]
    controls = {}
    for part in run.parts:
        for control, values in part.controls(run.config.parts[part.name]).items():
            eval_step = make_eval_step(adaptation.model, adaptation.weights, values)
            step = given(eval_step, outcome.params, outcome.assigned)
            controls[control] = on("test", _shuffled(run), [step])[0].metrics["accuracy"]
    names, metrics = run.dataset.class_names, on_test[last].metrics
    return Final(predictions, metrics, best_accuracy, temperature, controls, names)


def _predictions(run: Training, split: Split, first: Evaluation, last: Evaluation) -> Predictions:
    """Of the last evaluation; and of the first, which is the zero-shot CLIP's if there is one."""
    zero_shot = first.logits if run.has_text else None
    return Predictions(list(split.keys), np.asarray(split.labels), last.logits, zero_shot)


def _shuffled(run: Training) -> Split:
    """The test split in an order in which each image stands beside images of other classes."""
    test = run.dataset.test
    return test.take(np.random.default_rng(run.config.data.split_seed).permutation(len(test)))
