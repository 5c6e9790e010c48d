"""The linear probe of CLIP's paper (arXiv 2103.00020, A.3): logistic regression by L-BFGS."""

from typing import Any

import jax
import numpy as np

from vprompt_jax.clip.model import unit_norm
from vprompt_jax.data import pipeline
from vprompt_jax.data.dataset import Split
from vprompt_jax.process.errors import UserError
from vprompt_jax.train.assemble import Run
from vprompt_jax.train.step import TrainState

# Inverse strengths of the L2 penalty, as scikit-learn's C; the paper sweeps a wider range.
STRENGTHS = tuple(10.0**k for k in range(-2, 5))


def is_wanted(config) -> bool:
    """Whether a config asks for this solver."""
    return config.head.kind == "linear" and config.head.solver == "lbfgs"


def solved(run: Run, state: TrainState) -> TrainState:
    """The state at the last step with the head solved at the strength that val prefers.

    Without val C is 1. Like the gradient-trained head it sees features of unit length.

    Raises:
      UserError: if a part other than the head is trained, or the features are not cached.
    """
    if set(state.params) != {"head"}:
        raise UserError(
            "config.head.solver=lbfgs trains the head alone: switch the other parts off"
        )
    if run.model.start != run.model.clip.config.depth:
        raise UserError("config.head.solver=lbfgs needs the features: set config.cache.mode=on")
    state = state.replace(step=np.int32(run.steps), params={"head": _head(run, state.params)})
    return jax.device_put(state, pipeline.replicated_sharding())


def _head(run: Run, params: Any) -> dict[str, Any]:
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
    head = jax.device_get(params["head"])
    kernel, bias = np.zeros_like(head["dense"]["kernel"]), np.full_like(head["dense"]["bias"], -1e9)
    # A class without training examples is never predicted.
    coefficients, offsets = best.coef_, best.intercept_
    if len(best.classes_) == 2:  # scikit-learn gives one column for two classes
        coefficients = np.concatenate([-coefficients, coefficients]) / 2
        offsets = np.concatenate([-offsets, offsets]) / 2
    kernel[:, best.classes_], bias[best.classes_] = coefficients.T, offsets
    return {"dense": {"kernel": kernel, "bias": bias}}
