"""Where metrics go: `metrics.jsonl`, TensorBoard events and the log."""

import json
from pathlib import Path

from clu import metric_writers


class JsonLinesWriter(metric_writers.MetricWriter):
    """Appends a JSON object per call: the step and its scalars."""

    def __init__(self, path: Path, resume_step: int):
        """Continues a file, without the lines after `resume_step`: they will come again."""
        self._path = path
        if path.exists():
            lines = path.read_text().splitlines(keepends=True)
            kept = [x for x in lines if x.endswith("\n") and json.loads(x)["step"] <= resume_step]
            path.write_text("".join(kept))

    def write_scalars(self, step: int, scalars):
        values = {name: float(value) for name, value in scalars.items()}
        with self._path.open("a") as file:
            file.write(json.dumps({"step": int(step), **values}) + "\n")

    def write_hparams(self, hparams):
        pass  # config.json has them

    def flush(self):
        pass  # every line is written at once

    def close(self):
        pass

    def _unsupported(self, *args, **kwargs):
        raise NotImplementedError("metrics.jsonl takes scalars")

    write_summaries = write_images = write_videos = write_audios = _unsupported
    write_texts = write_histograms = write_pointcloud = _unsupported


def make_writer(workdir: Path, resume_step: int) -> metric_writers.MetricWriter:
    """A writer to `metrics.jsonl` and TensorBoard events in `workdir`."""
    return metric_writers.MultiWriter(
        [
            JsonLinesWriter(workdir / "metrics.jsonl", resume_step),
            metric_writers.SummaryWriter(str(workdir)),
        ]
    )
