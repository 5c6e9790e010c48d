"""Measures a model on labelled images, and writes down what it predicts."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vprompt_jax.data.dataset import Split
from vprompt_jax.evaluate import NAME
from vprompt_jax.evaluate.elsewhere import Model, fitted
from vprompt_jax.measures import table
from vprompt_jax.measures.split import measured


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What a model predicts for a split, and what that is worth.

    Attributes:
      measures: as in `result.json`, by name.
      predictions: of every image.
      temperature: of the model, fitted on val; None if it has none.
      class_names: that the model told apart.
    """

    measures: dict[str, Any]
    predictions: table.Predictions
    temperature: float | None
    class_names: tuple[str, ...]

    def write(self, folder: Path, split: str, about: dict[str, Any]) -> None:
        """Writes `evaluation.json`, with what it is `about`, and `predictions.parquet`."""
        folder.mkdir(parents=True, exist_ok=True)
        rows = {split: self.predictions}
        table.write(folder / table.NAME, rows, self.temperature, self.class_names)
        text = json.dumps({**about, "split": split, **self.measures}, indent=2)
        (folder / NAME).write_text(text + "\n")


def evaluated(
    model: Model,
    class_names: tuple[str, ...],
    split: Split,
    batch_size: int,
    *,
    texts: Sequence[str] | None = None,
    alone: bool = False,
) -> Evaluation:
    """Evaluates a model, fitted to the classes of the images.

    Args:
      model: of a run or an export.
      class_names: of the split's labels.
      split: labelled images.
      batch_size: images at a time.
      texts: templates that classes new to the model are put into; None for the run's.
      alone: whether these classes are all possible answers, although the model knows more.

    Raises:
      UserError: if the model does not know the classes and cannot be told them.
    """
    model, label_of = fitted(model, class_names, texts)
    parts = [
        model.logits(split.fetch(np.arange(start, min(start + batch_size, len(split)))))
        for start in range(0, len(split), batch_size)
    ]
    logits = np.concatenate(parts)
    labels, names = label_of[split.labels], tuple(model.class_names)
    if alone:
        logits, labels, names = logits[:, label_of], split.labels, class_names
    temperature = model.result.get("temperature")
    found = measured(logits, labels, names, temperature=temperature, zero_shot=None)
    predictions = table.Predictions(list(split.keys), labels, logits, None)
    return Evaluation(found, predictions, temperature, names)
