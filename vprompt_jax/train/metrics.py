"""Where metrics go: `metrics.jsonl` and TensorBoard's event files."""

import io
import json
import math
import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np
from PIL import Image

from vprompt_jax.config import Config
from vprompt_jax.config.config import flat
from vprompt_jax.process.files import replace
from vprompt_jax.train import trackers
from vprompt_jax.train.pictures import as_bytes


class Writer(Protocol):
    """What a run writes its metrics to."""

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes numbers by name, after `step` steps."""

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Writes pictures by name: [n, h, w, 1 or 3] of values in 0..1."""

    def flush(self) -> None:
        """Waits until the disk has everything."""

    def close(self) -> None:
        """Flushes and ends."""


class JsonLinesWriter:
    """Appends a JSON object per call: the step and its scalars, null where one is not finite."""

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
        if self._path.exists():
            _to_disk(self._path)

    def close(self) -> None:
        self.flush()

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        pass  # TensorBoard has them


def _to_disk(path: Path) -> None:
    """Waits until the disk has a file, to which everything was written at once."""
    with path.open("ab") as file:
        os.fsync(file.fileno())


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


class EventWriter:
    """Writes an event file for TensorBoard, with tensorboard's own format of records.

    tensorboard's `EventFileWriter` would import TensorFlow wherever that is installed, which takes
    seconds, to open a file.
    """

    def __init__(self, folder: Path):
        from tensorboard.compat.proto import event_pb2, summary_pb2

        self._event, self._summary = event_pb2.Event, summary_pb2.Summary
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
        self._path = folder / name
        self._write(file_version="brain.Event:2")

    def _write(self, **fields: Any) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        event = self._event(wall_time=time.time(), **fields)
        with self._path.open("ab") as file:
            RecordWriter(file).write(event.SerializeToString())

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        values = [self._summary.Value(tag=k, simple_value=float(v)) for k, v in scalars.items()]
        self._write(step=step, summary=self._summary(value=values))

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        values = []
        for name, pictures in images.items():
            for i, picture in enumerate(np.asarray(pictures)):
                shown = self._summary.Image(encoded_image_string=_png(picture))
                values.append(self._summary.Value(tag=f"{name}/{i}", image=shown))
        self._write(step=step, summary=self._summary(value=values))

    def flush(self) -> None:
        _to_disk(self._path)

    def close(self) -> None:
        self.flush()


def _png(picture: np.ndarray) -> bytes:
    """Encodes [h, w, 1 or 3] of values in 0..1."""
    encoded = io.BytesIO()
    Image.fromarray(as_bytes(picture)).save(encoded, "PNG")
    return encoded.getvalue()


class Writers:
    """Writes to several, in turn."""

    def __init__(self, writers: Sequence[Writer]):
        self._writers = writers

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        for writer in self._writers:
            writer.write_scalars(step, scalars)

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        for writer in self._writers:
            writer.write_images(step, images)

    def flush(self) -> None:
        for writer in self._writers:
            writer.flush()

    def close(self) -> None:
        for writer in self._writers:
            writer.close()


def make_writer(workdir: Path, resume_step: int, config: Config) -> Writer:
    """A writer to `metrics.jsonl`, TensorBoard events in `workdir` and, if the config names one, a
    tracker; process 0 alone writes.

    Raises:
      UserError: if the tracker is not installed.
    """
    if jax.process_index() != 0:
        return Writers([])
    writers: list[Writer] = [
        JsonLinesWriter(workdir / "metrics.jsonl", resume_step),
        EventWriter(workdir),
    ]
    if config.log.tracker != "none":
        values = flat(config.as_dict())
        writers.append(trackers.writer(config.log.tracker, workdir, values, resume_step))
    return Writers(writers)
