"""The linear probe of CLIP's paper (arXiv 2103.00020, appendix A.3): logistic regression by L-BFGS."""

from typing import Any

import jax
import numpy as np

from vprompt_jax.clip.model import unit_norm
from vprompt_jax.data.dataset import Split
from vprompt_jax.errors import UserError
from vprompt_jax.train.assemble import Run

# Inverse strengths of the L2 penalty, as scikit-learn's C; the paper sweeps a wider range the same way.
STRENGTHS = tuple(10.0**k for k in range(-2, 5))


def check(run: Run) -> None:
    """Refuses a probe of features that something else changes.

    Raises:
      UserError: if a part other than the head is trained, or the features are not cached.
    """
    if set(run.initial_params()) != {"head"}:
        raise UserError("config.head.solver=lbfgs trains the head alone: switch the other parts off")
    if run.model.start != run.model.clip.config.depth:
        raise UserError("config.head.solver=lbfgs needs the cached features: set config.cache.mode=on")


def fit(run: Run) -> dict[str, Any]:
    """The head's parameters at the strength that val prefers (without val: C = 1).

    Like the gradient-trained head it sees features of unit length.
    """
    from sklearn.linear_model import LogisticRegression

    def features(split: Split) -> np.ndarray:
        return np.asarray(unit_norm(split.fetch(np.arange(len(split))).astype(np.float32)))

    x, y = features(run.dataset.train), run.dataset.train.labels

    def solved(strength: float) -> LogisticRegression:
        return LogisticRegression(C=strength, max_iter=1000).fit(x, y)

    best = solved(1.0)
    if run.dataset.val is not None:
        val, labels = features(run.dataset.val), run.dataset.val.labels
        best = max((solved(s) for s in STRENGTHS), key=lambda m: m.score(val, labels))
    head = jax.device_get(run.initial_params()["head"])
    kernel, bias = np.zeros_like(head["dense"]["kernel"]), np.full_like(head["dense"]["bias"], -1e9)
    # A class without training examples is never predicted.
    coefficients, offsets = best.coef_, best.intercept_
    if len(best.classes_) == 2:  # scikit-learn gives one column for two classes
        coefficients = np.concatenate([-coefficients, coefficients]) / 2
        offsets = np.concatenate([-offsets, offsets]) / 2
    kernel[:, best.classes_], bias[best.classes_] = coefficients.T, offsets
    return {"head": {"dense": {"kernel": kernel, "bias": bias}}}
