"""The linear probe of CLIP's paper (arXiv 2103.00020, A.3): logistic regression by L-BFGS."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vprompt_jax.clip.model import unit_norm
from vprompt_jax.parts import Examples, Found, HeadInputs, Solver

# scikit-learn's C, the inverse strength of the L2 penalty; the paper sweeps a wider range.
STRENGTHS = tuple(10.0**k for k in range(-2, 5))
_NEVER = -1e9  # bias of a class without training examples, so that it is never predicted


def solved(
    params: Any,
    train: tuple[np.ndarray, np.ndarray],
    val: tuple[np.ndarray, np.ndarray] | None,
) -> dict[str, Any]:
    """Solves a linear head with the C that is best on val; without val, C is 1.

    Like the head that gradients train, it sees features of unit length.

    Args:
      params: parameters of a `LinearHead`, for their shapes.
      train: features [N, E] and labels [N].
      val: the same of the validation split, or None.

    Returns:
      Parameters of the same structure as `params`.
    """
    from sklearn.linear_model import LogisticRegression

    def unit(features: np.ndarray) -> np.ndarray:
        return np.asarray(unit_norm(jnp.asarray(features, jnp.float32)))

    x, y = unit(train[0]), train[1]

    def fitted(strength: float) -> LogisticRegression:
        return LogisticRegression(C=strength, max_iter=1000).fit(x, y)

    best = fitted(1.0)
    if val is not None:
        features, labels = unit(val[0]), val[1]
        best = max((fitted(s) for s in STRENGTHS), key=lambda m: m.score(features, labels))
    dense = jax.device_get(params["dense"])
    kernel, bias = np.zeros_like(dense["kernel"]), np.full_like(dense["bias"], _NEVER)
    coefficients, offsets = best.coef_, best.intercept_
    if len(best.classes_) == 2:  # scikit-learn gives one column for two classes
        coefficients = np.concatenate([-coefficients, coefficients]) / 2
        offsets = np.concatenate([-offsets, offsets]) / 2
    kernel[:, best.classes_], bias[best.classes_] = coefficients.T, offsets
    return {"dense": {"kernel": kernel, "bias": bias}}


@dataclasses.dataclass(frozen=True)
class Probe(Solver):
    """Solves the linear head in place of all train steps."""

    asked: str = "config.head.solver=lbfgs"
    beside_others: str = "config.head.solver=sgd"
    by_steps: str = "config.head.solver=sgd"

    def start(self, at: Found, train: Examples, val: Examples | None, given: HeadInputs) -> Found:
        """The solved head; texts do not matter to it."""
        del given
        return at._replace(params=solved(at.params, train, val))
