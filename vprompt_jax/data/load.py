"""From a config to a dataset, whichever source it names."""

import dataclasses
from pathlib import Path

import numpy as np

from vprompt_jax.data import digits, folder, tfds_source
from vprompt_jax.data.dataset import Dataset, Split, check, split_of_arrays, with_validation
from vprompt_jax.errors import UserError

# Splits up to this size are decoded once and kept; larger ones are decoded as they are needed.
MEMORY_LIMIT = 2 * 2**30  # bytes per split
_CHUNK = 4096  # images decoded at a time


def load(config, resolution: int) -> Dataset:
    """Loads the dataset a resolved config names.

    Args:
      config: resolved by `config.resolve`.
      resolution: of the tower, for images that have to be resized on the host.

    Returns:
      A dataset; its `val` is cut from train under `protocol=val` and None under
      `protocol=paper`, where all of train (without a source's own val split) is trained on.

    Raises:
      UserError: if the data is missing, empty, damaged or does not fit its classes.
    """
    if config.data.source == "digits":
        dataset = digits.load()
    elif config.data.source == "folder":
        root = Path(config.data.dir).expanduser()
        dataset = folder.load(root, resolution, config.data.workers)
    elif config.data.source == "given":
        raise UserError(
            f"the images of {config.data.name} were given in Python and are in no file: give them "
            "again (vprompt_jax.fit), or store them as a folder"
        )
    else:
        dataset = tfds_source.load(config.data.name, config.data.dir, resolution)
    return prepare(dataset, config)


def prepare(dataset: Dataset, config) -> Dataset:
    """What `load` does to any source's dataset: checks, the protocol's `val`, small splits kept.

    Raises:
      UserError: if a split is empty, damaged or does not fit the classes.
    """
    check(dataset)
    if config.protocol == "val":
        dataset = with_validation(dataset, config.data.val_fraction)
    else:
        dataset = dataclasses.replace(dataset, val=None)
    return dataclasses.replace(
        dataset,
        train=_in_memory(dataset.train),
        val=None if dataset.val is None else _in_memory(dataset.val),
        test=_in_memory(dataset.test),
    )


def _in_memory(split: Split) -> Split:
    """Decodes a split that fits in memory, so that a damaged image shows before training."""
    count = len(split)
    first = split.fetch(np.arange(1))
    if first.nbytes * count > MEMORY_LIMIT:
        return split
    images = np.empty((count, *first.shape[1:]), np.uint8)
    for start in range(0, count, _CHUNK):
        indices = np.arange(start, min(start + _CHUNK, count))
        images[indices] = split.fetch(indices)
    return dataclasses.replace(split_of_arrays(images, split.labels), keys=split.keys)
