"""Chooses the examples of every step, and reads them ahead.

Each epoch has one permutation of the training split, drawn from (seed, epoch). A step takes its
slice of the permutation, and every process its slice of the step. So the step number alone gives
the position in the data, and the number of devices or processes does not change what a step sees.
"""

import functools
import threading
from collections.abc import Iterator

import grain
import jax
import numpy as np

from vprompt_jax.data.dataset import Split

Batch = dict[str, np.ndarray]


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Number of steps in an epoch, including the last, partial batch."""
    return -(-examples // batch_size)


def _local_batch(split: Split, indices: np.ndarray, batch_size: int, parts: int = 1) -> Batch:
    """Reads this process's share of the examples at `indices`, padded to equal shards.

    A shard's size is a multiple of `parts`.

    Returns:
      For d local devices: the split's content ("image" uint8 [d, b, h, w, 3] or "activation"
      [d, b, ...]), label int32 [d, b], index int32 [d, b] (in the split; -1 for padding) and weight
      float32 [d, b] (0 for padding).
    """
    devices = jax.device_count()
    per_device = -(-batch_size // (devices * parts)) * parts
    padded = np.full(per_device * devices, -1, np.int32)
    padded[: len(indices)] = indices
    local = padded.reshape(jax.process_count(), -1)[jax.process_index()]
    chosen = np.where(local < 0, indices[0], local)  # padding repeats a real example, at weight 0
    shape = (jax.local_device_count(), per_device)
    inputs = split.fetch(chosen)
    return {
        split.content: inputs.reshape(*shape, *inputs.shape[1:]),
        "label": split.labels[chosen].reshape(shape),
        "index": local.reshape(shape),
        "weight": (local >= 0).astype(np.float32).reshape(shape),
    }


_drawing = threading.Lock()


def _epoch_order(seed: int, epoch: int, examples: int) -> np.ndarray:
    """The order of an epoch's examples, int64 [examples], read-only.

    Drawing a million indices takes 36 ms, so an epoch's order is kept while its steps are read. The
    lock makes one of the reading threads draw it while the others wait.
    """
    with _drawing:
        return _drawn(seed, epoch, examples)


@functools.lru_cache(maxsize=2)  # two epochs: threads that read ahead may be in the next one
def _drawn(seed: int, epoch: int, examples: int) -> np.ndarray:
    order = np.random.default_rng((seed, epoch)).permutation(examples)
    order.flags.writeable = False
    return order


class _TrainBatches:
    """Random access to the batches of a run, by step number."""

    def __init__(self, split: Split, batch_size: int, epochs: int, seed: int, parts: int):
        self._split, self._batch_size, self._seed, self._parts = split, batch_size, seed, parts
        self._per_epoch = steps_per_epoch(len(split), batch_size)
        self._steps = epochs * self._per_epoch

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> Batch:
        epoch, position = divmod(int(step), self._per_epoch)
        order = _epoch_order(self._seed, epoch, len(self._split))
        start = position * self._batch_size
        indices = order[start : start + self._batch_size]
        return _local_batch(self._split, indices, self._batch_size, self._parts)


def _prefetched(
    source: "_TrainBatches | _EvalBatches", start: int, workers: int
) -> Iterator[Batch]:
    options = grain.ReadOptions(num_threads=workers, prefetch_buffer_size=2 * workers)
    return iter(grain.MapDataset.source(source)[start:].to_iter_dataset(options))


def train_batches(
    split: Split,
    *,
    batch_size: int,
    epochs: int,
    seed: int,
    start: int,
    workers: int,
    parts: int = 1,
) -> Iterator[Batch]:
    """This process's batches from step `start` to the last, read ahead by `workers` threads.

    Each device's share of a batch is a multiple of `parts`.
    """
    return _prefetched(_TrainBatches(split, batch_size, epochs, seed, parts), start, workers)


class _EvalBatches:
    """Random access to the batches of one pass over a split, in order."""

    def __init__(self, split: Split, batch_size: int):
        self._split, self._batch_size = split, min(batch_size, len(split))

    def __len__(self) -> int:
        return steps_per_epoch(len(self._split), self._batch_size)

    def __getitem__(self, step: int) -> Batch:
        start = int(step) * self._batch_size
        end = min(start + self._batch_size, len(self._split))
        return _local_batch(self._split, np.arange(start, end), self._batch_size)


def eval_batches(split: Split, *, batch_size: int, workers: int) -> Iterator[Batch]:
    """One pass over a split: each example once; padding has weight 0."""
    return _prefetched(_EvalBatches(split, batch_size), 0, workers)
