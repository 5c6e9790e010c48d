"""Trackers of experiments, which get a run's metrics, too; each is an extra of its name."""

import hashlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vprompt_jax.process.errors import UserError
from vprompt_jax.schema.sections import Tracker
from vprompt_jax.train.pictures import as_bytes

_PROJECT = "vprompt_jax"


class _WandbWriter:
    """Weights & Biases; WANDB_MODE=offline keeps the run on this machine."""

    def __init__(self, workdir: Path, config: Mapping[str, Any], resume_step: int):
        import wandb

        self._wandb = wandb
        self._run = wandb.init(
            project=_PROJECT, dir=workdir, name=workdir.name, config=dict(config),
            id=_identity(workdir), resume="allow" if resume_step else None,
        )  # fmt: skip

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        self._run.log({name: float(value) for name, value in scalars.items()}, step=step)

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        shown = {n: [self._wandb.Image(as_bytes(x)) for x in many] for n, many in images.items()}
        self._run.log(shown, step=step)

    def flush(self) -> None:
        pass  # it sends what it has from a process of its own

    def close(self) -> None:
        self._run.finish()


class _MlflowWriter:
    """MLflow; MLFLOW_TRACKING_URI says where."""

    def __init__(self, workdir: Path, config: Mapping[str, Any], resume_step: int):
        import mlflow

        self._client = mlflow.MlflowClient()
        found = self._client.get_experiment_by_name(_PROJECT)
        experiment = found.experiment_id if found else self._client.create_experiment(_PROJECT)
        same = f"tags.workdir = '{_identity(workdir)}'"
        earlier = self._client.search_runs([experiment], same) if resume_step else []
        if earlier:
            self._id = earlier[0].info.run_id
            return
        tags = {"workdir": _identity(workdir)}
        run = self._client.create_run(experiment, tags=tags, run_name=workdir.name)
        self._id = run.info.run_id
        for key, value in config.items():
            self._client.log_param(self._id, key, value)

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        for name, value in scalars.items():
            self._client.log_metric(self._id, name, float(value), step=step)

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        for name, many in images.items():
            for i, image in enumerate(as_bytes(many)):
                self._client.log_image(self._id, image, f"{name}/{i}/step{step}.png")

    def flush(self) -> None:
        pass  # every call is written at once

    def close(self) -> None:
        self._client.set_terminated(self._id)


_WRITERS = {"wandb": _WandbWriter, "mlflow": _MlflowWriter}


def _identity(workdir: Path) -> str:
    """What tells a run's later processes that an earlier one's record is theirs."""
    return hashlib.sha256(str(workdir.resolve()).encode()).hexdigest()[:16]


def writer(name: Tracker, workdir: Path, config: Mapping[str, Any], resume_step: int) -> Any:
    """A writer (`metrics.Writer`) to a tracker.

    Args:
      name: of the tracker, not "none".
      workdir: of the run, by which a resumed run finds its record.
      config: values by dotted key.
      resume_step: number of updates done.

    Raises:
      UserError: if the tracker is not installed.
    """
    if importlib.util.find_spec(name) is None:
        raise UserError(
            f'config.log.tracker={name} needs a package: pip install "vprompt_jax[{name}]"'
        )
    return _WRITERS[name](workdir, config, resume_step)
