"""Gathers `result.json` files, and groups what differs by the seed alone."""

import dataclasses
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from vprompt_jax.errors import UserError
from vprompt_jax.train.run import read_result


@dataclasses.dataclass(frozen=True, order=True)
class Setting:
    """What a result is a result of, its seed aside."""

    method: str
    init: str  # of the prompt; "" without one
    size: int  # of the prompt, in pixels; 0 without one


# Accuracies by setting and seed.
Accuracies = dict[Setting, dict[int, float]]


def gather(workdirs: Iterable[Path]) -> list[dict[str, Any]]:
    """Reads the results of finished runs on one dataset.

    Raises:
      UserError: if a run has not finished, or the datasets differ.
    """
    results = []
    for workdir in workdirs:
        result = read_result(workdir)
        if result is None:
            raise UserError(f"{workdir} holds no finished run (no result.json)")
        results.append({**result, "workdir": workdir})
    datasets = sorted({r["dataset"] for r in results})
    if len(datasets) != 1:
        raise UserError(f"one table holds one dataset, not {', '.join(datasets) or 'none'}")
    return results


def setting_of(result: dict[str, Any]) -> Setting:
    """The setting of one result."""
    init, size = result.get("prompt_init", ""), result.get("prompt_size", 0)
    return Setting(result["method"], init, size)


def accuracies(results: Iterable[dict[str, Any]]) -> Accuracies:
    """Test accuracy of the last step, by setting and seed."""
    grouped: Accuracies = defaultdict(dict)
    for result in results:
        grouped[setting_of(result)][result["seed"]] = result["test_accuracy"]
    return dict(sorted(grouped.items()))


def paired(a: dict[int, float], b: dict[int, float]) -> np.ndarray:
    """Differences a - b over the seeds that both have."""
    return np.array([a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())])


def spread(values: np.ndarray) -> str:
    """Mean and sample standard deviation in percentage points."""
    if len(values) < 2:
        return f"{100 * values.mean():.1f}"
    return f"{100 * values.mean():.1f} ± {100 * values.std(ddof=1):.1f}"
