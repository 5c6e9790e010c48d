"""What a run is made of, as hashes: a save is only continued with the same weights and data."""

import hashlib
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from vprompt_jax.data.dataset import Dataset


def of_arrays(tree: Any) -> str:
    """SHA-256 of the paths, dtypes, shapes and bytes of a tree's arrays, as 64 hex digits.

    About 0.5 s for a ViT-B/32 (600 MB) on one core.
    """
    digest = hashlib.sha256()
    leaves = sorted(
        (jax.tree_util.keystr(path), leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(jax.device_get(tree))
    )
    for path, leaf in leaves:
        array = np.asarray(leaf, order="C")
        digest.update(f"{path} {array.dtype} {array.shape}\n".encode())
        digest.update(array.reshape(-1).view(np.uint8))
    return digest.hexdigest()


def of_dataset(dataset: Dataset) -> str:
    """SHA-256 of the class names and of every split's keys and labels, in their order.

    The pixels are not read: an image replaced under its old name goes unnoticed.
    """
    digest = hashlib.sha256()

    def add(lines: Iterable[str]):
        for line in lines:
            digest.update(line.encode() + b"\n")

    add(dataset.class_names)
    for name in ("train", "val", "test"):
        split = getattr(dataset, name)
        add([f"{name} {0 if split is None else len(split)}"])
        if split is not None:
            add(split.keys)
            digest.update(np.asarray(split.labels, np.int32))
    return digest.hexdigest()
