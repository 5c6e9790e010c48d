"""Two classifiers on the same images: the difference in accuracy, and what chance would give."""

import dataclasses

import numpy as np

_DRAWS = 10_000


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One classifier against another on the same images.

    Attributes:
      difference: of their accuracies, the first's less the second's.
      interval: 95 % interval of the difference, by paired bootstrap over the images.
      p: of McNemar's exact test: how likely so uneven a split of the images on which they disagree
        is if both are equally good.
    """

    difference: float
    interval: tuple[float, float]
    p: float


def interval(hits: np.ndarray) -> tuple[float, float]:
    """95 % percentile bootstrap interval of an accuracy.

    The number of hits in a resample is binomial, so that its percentiles need no drawing.

    Args:
      hits: bool [n].
    """
    from scipy import stats  # late: it takes half a second, and a run needs it at its end

    low, high = stats.binom.ppf((0.025, 0.975), len(hits), np.mean(hits)) / len(hits)
    return float(low), float(high)


def compare(hits: np.ndarray, others: np.ndarray) -> Comparison:
    """Compares by whether each of two classifiers is right on each of n images: bool [n] each."""
    from scipy import stats  # late, as above

    n = len(hits)
    gained, lost = int((hits & ~others).sum()), int((others & ~hits).sum())
    disagree = gained + lost
    p = float(stats.binomtest(gained, disagree).pvalue) if disagree else 1.0
    # How often a resample draws an image of each kind is multinomial.
    shares = [gained / n, lost / n, 1 - disagree / n]
    drawn = np.random.default_rng(0).multinomial(n, shares, _DRAWS)
    low, high = np.percentile((drawn[:, 0] - drawn[:, 1]) / n, (2.5, 97.5))
    return Comparison((gained - lost) / n, (float(low), float(high)), p)
