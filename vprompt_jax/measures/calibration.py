"""Whether probabilities are what they say, and the temperature that makes them so."""

import numpy as np

BINS = 15  # as Guo et al. (arXiv 1706.04599, section 5)
_RANGE = np.log(1e-3), np.log(1e3)  # of temperatures tried


def loss(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> float:
    """Mean negative log likelihood, in nats, of logits [n, C] over a temperature."""
    from scipy.special import log_softmax  # late: a run needs it at its end

    log_p = log_softmax(logits.astype(np.float64) / temperature, axis=-1)
    return float(-log_p[np.arange(len(labels)), labels].mean())


def fitted_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature that logits are divided by for the least loss (arXiv 1706.04599, eq. 9).

    Args:
      logits: float [n, C], of a split that nothing is reported on.
      labels: int [n].
    """
    from scipy.optimize import minimize_scalar  # late: a run needs it at its end

    found = minimize_scalar(
        lambda log_t: loss(logits, labels, float(np.exp(log_t))), bounds=_RANGE, method="bounded"
    )
    return float(np.exp(found.x))


def bins(confidence: np.ndarray, hits: np.ndarray) -> np.ndarray:
    """Means over equally wide bins of confidence, of those that are not empty.

    Args:
      confidence: float [n], probabilities of the predicted classes.
      hits: bool [n], whether these are right.

    Returns:
      float [k, 3]: share of the examples, mean confidence and accuracy in each bin.
    """
    # A bin holds its upper end, as the paper's does: 1 belongs to the last, 0 to the first.
    number = np.clip(np.ceil(confidence * BINS) - 1, 0, BINS - 1).astype(int)
    rows = [
        (np.mean(number == b), confidence[number == b].mean(), hits[number == b].mean())
        for b in np.unique(number)
    ]
    return np.array(rows, np.float64).reshape(-1, 3)


def calibration_error(confidence: np.ndarray, hits: np.ndarray) -> float:
    """Expected calibration error (arXiv 1706.04599, eq. 3), of arguments as `bins` takes them."""
    share, said, found = bins(confidence, hits).T
    return float((share * np.abs(said - found)).sum())
