"""Measures how fast a split is read, and how much of it goes to the device."""

import time

import numpy as np

from vprompt_jax.data import pipeline
from vprompt_jax.data.dataset import Split

_SECONDS = 2.0  # duration of a measurement


def images_per_second(split: Split, batch_size: int, workers: int) -> float:
    """Reads training batches as a run does, for about two seconds.

    The first batches are not counted, since they include starting the threads.
    """
    epochs = 1 + 100_000 * batch_size // max(len(split), 1)
    batches = pipeline.train_batches(
        split, batch_size=batch_size, epochs=epochs, seed=0, start=0, workers=workers
    )
    for _ in range(2 * workers + 1):  # all that is read ahead before the clock starts
        next(batches)
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < _SECONDS:
        count += int(next(batches)["weight"].sum())
    return count / (time.perf_counter() - started)


def report(split: Split, workers: int, batch_size: int = 64) -> str:
    """Reports the reading speed of `workers` threads, and the bytes per image for the device."""
    size = split.fetch(np.arange(1)).nbytes
    speed = images_per_second(split, min(batch_size, len(split)), workers)
    return (
        f"bytes per image sent to the device: {size:,} (uint8)\n"
        f"images per second read by {workers} threads: {speed:,.0f}"
    )
