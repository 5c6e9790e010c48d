"""A trial of a search: a run whose outcome on val is kept."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from vprompt_jax.config.space import with_values
from vprompt_jax.process.errors import Diverged, Pruned
from vprompt_jax.process.files import read_json, replace
from vprompt_jax.train.validation import Watch

WAIT = 5.0  # seconds between looks at trials of other processes
_NAME = "trial.json"


@dataclasses.dataclass(frozen=True)
class Trial:
    """A trial that has ended.

    Attributes:
      values: by axis.
      accuracy: of the last step, on val; None if it did not get there.
      state: "finished", "pruned" or "diverged".
      folder: of the run.
    """

    values: Mapping[str, Any]
    accuracy: float | None
    state: str
    folder: str


def said(trial: Trial) -> str:
    """A trial in words."""
    values = ", ".join(f"{name}={value}" for name, value in trial.values.items())
    reached = trial.state if trial.accuracy is None else f"{trial.accuracy:.2%} on val"
    return f"{values}: {reached}"


def tried(
    config: ConfigDict, values: Mapping[str, Any], folder: Path, watch: Watch | None = None
) -> Trial:
    """A trial's outcome; runs what is left of it.

    Raises:
      InUse: if another process works on it.
    """
    import jax

    from vprompt_jax.train.run import fit

    one = with_values(config, values)
    workdir = folder / f"trial-{one.fingerprint}"
    path = workdir / _NAME
    if not path.is_file():
        accuracy, state = None, "finished"
        try:
            accuracy = fit(one, workdir, watch=watch)["val"]["accuracy"]
        except Pruned:
            state = "pruned"
        except Diverged:
            state = "diverged"
        stored = {"values": dict(values), "val_accuracy": accuracy, "state": state}
        replace(path, json.dumps(stored, indent=2) + "\n")
        jax.clear_caches()
        print(f"  {said(Trial(values, accuracy, state, workdir.name))}", flush=True)
    stored = read_json(path, "delete it and give the command again")
    return Trial(values, stored["val_accuracy"], stored["state"], workdir.name)
