"""Where metrics go: `metrics.jsonl`, TensorBoard events and the log."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from vprompt_jax.process.files import replace

if TYPE_CHECKING:
    from clu import metric_writers


class JsonLinesWriter:
    """Appends a JSON object per call: the step and its scalars, null where one is not finite.

    What a run asks of CLU's `MetricWriter`, without being one: that class comes with TensorFlow.
    """

    def __init__(self, path: Path, resume_step: int):
        """Continues a file, without what comes after `resume_step`: it will come again."""
        self._path = path
        if path.exists():
            replace(path, "".join(_lines_up_to(path, resume_step)))

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        numbers = {name: float(value) for name, value in scalars.items()}
        values = {name: x if math.isfinite(x) else None for name, x in numbers.items()}
        with self._path.open("a") as file:
            file.write(json.dumps({"step": int(step), **values}) + "\n")

    def flush(self) -> None:
        """Every line is written at once; this waits until the disk has them."""
        if self._path.exists():
            with self._path.open("a") as file:
                os.fsync(file.fileno())

    def close(self) -> None:
        self.flush()

    def write_images(self, step: int, images: Mapping[str, Any]) -> None:
        pass  # TensorBoard has them


def _lines_up_to(path: Path, step: int) -> list[str]:
    """The lines to keep; a power failure may have left anything after the last save's lines."""
    kept = []
    for line in path.read_text(errors="replace").splitlines(keepends=True):
        try:
            if not line.endswith("\n") or json.loads(line)["step"] > step:
                break
        except (ValueError, KeyError, TypeError):
            break
        kept.append(line)
    return kept


def make_writer(workdir: Path, resume_step: int) -> "metric_writers.MetricWriter":
    """A writer to `metrics.jsonl` and TensorBoard events in `workdir`; process 0 alone writes."""
    from clu import metric_writers  # imports TensorFlow, which takes seconds

    if jax.process_index() != 0:
        return metric_writers.MultiWriter([])
    return metric_writers.MultiWriter(
        [
            JsonLinesWriter(workdir / "metrics.jsonl", resume_step),
            metric_writers.SummaryWriter(str(workdir)),
        ]
    )
