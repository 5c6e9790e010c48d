"""The embedded target: scikit-learn's handwritten digits, placed in small colour scenes.

The 1,797 digits (UCI, 43 writers, 8x8 pixels) are divided by digit, and only then is each placed
in several scenes, so that no digit appears in two splits. Several scenes per digit make the test
set large enough to tell methods apart.
"""

import functools
import hashlib
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from vprompt_jax.data import scenes
from vprompt_jax.data.dataset import Dataset, split_of_arrays
from vprompt_jax.process import paths

# Share of the digits of each class, and scenes per digit.
SPLITS = {"train": (0.6, 12), "val": (0.2, 4), "test": (0.2, 8)}
_SEED = 20_240_320  # fixed: the dataset is the same in every run


def _place(digit: np.ndarray, key: tuple[int, ...]) -> np.ndarray:
    """One scene of one digit [8, 8] of 0..16, the same for the same key."""
    rng = np.random.default_rng(key)
    columns = np.flatnonzero(digit.max(axis=0) > 0)
    digit = digit[:, columns[0] : columns[-1] + 1] / 16.0
    height = int(rng.integers(12, 29))
    width = max(3, round(height * digit.shape[1] / 8 * rng.uniform(0.8, 1.2)))
    return scenes.paint(digit, (min(width, scenes.SIDE), height), rng)


@functools.cache
def load() -> Dataset:
    """Splits of 32x32 scenes; classes "0" to "9".

    Painting them takes seconds, so they are kept in the cache folder, under a name that changes
    with the code that paints them.
    """
    painters = [Path(scenes.__file__).read_bytes(), Path(__file__).read_bytes()]
    name = hashlib.sha256(b"".join(painters)).hexdigest()[:16]
    path = paths.cache_folder() / f"digits-{name}.npz"
    try:
        with np.load(path) as file:
            arrays = dict(file)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        arrays = _painted()
        _keep(path, arrays)
    train, val, test = (
        split_of_arrays(arrays[f"{split}_images"], arrays[f"{split}_labels"]) for split in SPLITS
    )
    return Dataset("digits", tuple("0123456789"), train, val, test)


def _painted() -> dict[str, np.ndarray]:
    """SPLIT_images uint8 [N, 32, 32, 3] and SPLIT_labels [N] of every split."""
    from sklearn.datasets import load_digits

    source = load_digits()
    members: dict[str, list[int]] = {name: [] for name in SPLITS}
    shuffle = np.random.default_rng(_SEED)
    for label in range(10):
        order = shuffle.permutation(np.flatnonzero(source.target == label))
        train_end = round(SPLITS["train"][0] * len(order))
        val_end = train_end + round(SPLITS["val"][0] * len(order))
        for name, part in zip(SPLITS, np.split(order, [train_end, val_end]), strict=True):
            members[name].extend(part.tolist())
    arrays = {}
    for name, (_, copies) in SPLITS.items():
        chosen = [(i, copy) for i in sorted(members[name]) for copy in range(copies)]
        images = [_place(source.images[i], (_SEED, i, copy)) for i, copy in chosen]
        arrays[f"{name}_images"] = np.stack(images)
        arrays[f"{name}_labels"] = source.target[[i for i, _ in chosen]].astype(np.int32)
    return arrays


def _keep(path: Path, arrays: dict[str, Any]) -> None:
    """Stores arrays for the next process; where that cannot be, it paints again."""
    partial = path.with_name(f"{path.stem}-{os.getpid()}.part.npz")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(partial, **arrays)
        os.replace(partial, path)
    except OSError:
        partial.unlink(missing_ok=True)
