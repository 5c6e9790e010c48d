"""Measures a model on labelled images, and writes down what it predicts."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vprompt_jax.data.dataset import Dataset, Split
from vprompt_jax.evaluate import NAME
from vprompt_jax.evaluate.elsewhere import Model, fitted
from vprompt_jax.measures import table
from vprompt_jax.measures.split import measured
from vprompt_jax.train import result

Among = Literal["run", "images"]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What a model predicts for a split, and what that is worth.

    Attributes:
      measures: as in `result.json`, by name.
      predictions: of every image.
      temperature: of the model, fitted on val; None if it has none.
      class_names: that could be predicted.
      among: whose classes these are, the run's or those of the images alone.
    """

    measures: dict[str, Any]
    predictions: table.Predictions
    temperature: float | None
    class_names: tuple[str, ...]
    among: Among

    def write(self, folder: Path, split: str, about: dict[str, Any]) -> None:
        """Writes `evaluation.json`, with what it is `about`, and `predictions.parquet`."""
        folder.mkdir(parents=True, exist_ok=True)
        rows = {split: self.predictions}
        table.write(folder / table.NAME, rows, self.temperature, self.class_names)
        about = {**about, "among": self.among, "split": split}
        text = json.dumps(about | self.measures, indent=2)
        (folder / NAME).write_text(text + "\n")


def provenance(model: Model, dataset: Dataset) -> dict[str, Any]:
    """Which images, which model and which versions an evaluation is of.

    The hashes of the config and the weights are those of the run's `result.json`; null for a run
    of an earlier version.
    """
    return {
        "dataset": dataset.name,
        "dataset_fingerprint": dataset.fingerprint,
        "dataset_contents": dataset.contents,
        **result.of_splits(dataset),
        "config_hash": model.result.get("config_hash"),
        "weights_hash": model.result.get("weights_hash"),
        "versions": result.versions(),
    }


def evaluated(
    model: Model,
    class_names: tuple[str, ...],
    split: Split,
    batch_size: int,
    among: Among = "run",
    *,
    texts: Sequence[str] | None = None,
) -> Evaluation:
    """Evaluates a model, fitted to the classes of the images.

    Args:
      model: of a run or an export.
      class_names: of the split's labels.
      split: labelled images.
      batch_size: images at a time.
      among: whose classes are possible answers, the run's or those of the images alone; the same
        where the images' classes take the place of the run's.
      texts: templates that classes new to the model are put into; None for the run's.

    Raises:
      UserError: if the model does not know the classes and cannot be told them.
    """
    own = model
    model, label_of = fitted(own, class_names, texts)
    if model is not own:
        among = "images"
    labels = label_of[split.labels]
    parts = [
        model.logits(split.fetch(np.arange(start, min(start + batch_size, len(split)))))
        for start in range(0, len(split), batch_size)
    ]
    logits = np.concatenate(parts)
    temperature = model.result.get("temperature")
    names = tuple(model.class_names)
    if among == "images":
        logits, labels = logits[:, label_of], split.labels
        names = tuple(names[label] for label in label_of)
    found = measured(logits, labels, names, temperature=temperature, zero_shot=None)
    predictions = table.Predictions(list(split.keys), labels, logits, None)
    return Evaluation(found, predictions, temperature, names, among)
