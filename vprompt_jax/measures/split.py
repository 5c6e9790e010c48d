"""Everything that is measured on one split."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from vprompt_jax.measures.calibration import calibration_error, loss
from vprompt_jax.measures.compare import compare, interval

_MOST_CONFUSED = 100  # classes, up to which the confusion matrix is kept
_LEAST_TOP5 = 11  # classes, from which being among the best five says something


def measured(
    logits: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    *,
    temperature: float | None,
    zero_shot: np.ndarray | None,
) -> dict[str, Any]:
    """What `result.json` says of a split.

    Args:
      logits: float32 [n, C].
      labels: int [n].
      names: of the C classes.
      temperature: fitted on val; None where there is none.
      zero_shot: logits [n, C] of the unadapted CLIP; None without a text tower.

    Returns:
      Shares are in 0..1 and losses in nats; what cannot be measured is None.
    """
    hits = logits.argmax(-1) == labels
    confused = np.zeros((len(names), len(names)), int)
    np.add.at(confused, (labels, logits.argmax(-1)), 1)
    before = None if zero_shot is None else zero_shot.argmax(-1) == labels
    scaled = None
    if temperature is not None:
        scaled = calibration_error(confidence(logits, temperature), hits)
    return {
        "images": len(labels),
        "accuracy": float(hits.mean()),
        "accuracy_interval": list(interval(hits)),
        "top5_accuracy": _top5(logits, labels) if len(names) >= _LEAST_TOP5 else None,
        "loss": loss(logits, labels),
        "calibration_error": calibration_error(confidence(logits), hits),
        "calibration_error_scaled": scaled,
        "against_zero_shot": None if before is None else vars(compare(hits, before)),
        "by_class": _by_class(names, labels, hits, before),
        "confusion": confused.tolist() if len(names) <= _MOST_CONFUSED else None,
    }


def confidence(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Probability of the predicted class, float [n]."""
    from scipy.special import softmax  # late: a run needs it at its end

    return softmax(logits.astype(np.float64) / temperature, axis=-1).max(-1)


def _top5(logits: np.ndarray, labels: np.ndarray) -> float:
    best = np.argpartition(-logits, 5, axis=-1)[:, :5]
    return float((best == labels[:, None]).any(-1).mean())


def _by_class(
    names: Sequence[str], labels: np.ndarray, hits: np.ndarray, before: np.ndarray | None
) -> list[dict[str, Any]]:
    """A row per class: its images, and the share recognised, adapted and zero-shot.

    Shares are None for a class without images.
    """

    def share(of: np.ndarray | None, label: int) -> float | None:
        mine = labels == label
        return float(of[mine].mean()) if of is not None and mine.any() else None

    return [
        {
            "class": name,
            "images": int((labels == label).sum()),
            "accuracy": share(hits, label),
            "zero_shot_accuracy": share(before, label),
        }
        for label, name in enumerate(names)
    ]
