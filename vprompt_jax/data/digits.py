"""The embedded target dataset: scikit-learn's handwritten digits, placed in small colour scenes.

The 1,797 drawings (UCI, 43 writers, 8x8 pixels) are divided into splits first. Only then is each
placed in several scenes, so that no drawing appears in two splits. Several scenes per drawing make
the test set large enough to tell methods apart.
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

# By split: the share of each class's drawings, and the number of scenes per drawing.
SPLITS = {"train": (0.6, 48), "val": (0.2, 4), "test": (0.2, 8)}
_SEED = 20_240_320  # fixed: the dataset is the same in every run


def _place(digit: np.ndarray, key: tuple[int, ...]) -> np.ndarray:
    """Paints a digit [8, 8] of levels 0..16 into one scene, which depends on `key` alone."""
    rng = np.random.default_rng(key)
    columns = np.flatnonzero(digit.max(axis=0) > 0)
    digit = digit[:, columns[0] : columns[-1] + 1] / 16.0
    height = int(rng.integers(12, 29))
    width = max(3, round(height * digit.shape[1] / 8 * rng.uniform(0.8, 1.2)))
    return scenes.paint(digit, (min(width, scenes.SIDE), height), rng)


@functools.cache
def load() -> Dataset:
    """Loads the splits of 32x32 scenes; the classes are "0" to "9".

    Painting takes seconds, so the scenes are kept in the cache folder, under a name that changes
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
    """Paints every split: SPLIT_images uint8 [N, 32, 32, 3] and SPLIT_labels int32 [N]."""
    import joblib
    from sklearn.datasets import load_digits

    # Not `multiprocessing`, whose processes run a script that has no `__main__` guard once more.
    on_all_cores = joblib.Parallel(n_jobs=-1)
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
        drawings = sorted(members[name])
        scenes_of = [joblib.delayed(_scenes)(source.images[i], i, copies) for i in drawings]
        arrays[f"{name}_images"] = np.concatenate(on_all_cores(scenes_of))
        labels = source.target[drawings].astype(np.int32)
        arrays[f"{name}_labels"] = np.repeat(labels, copies)
    return arrays


def _scenes(digit: np.ndarray, drawing: int, copies: int) -> np.ndarray:
    """Paints a drawing into several scenes: uint8 [copies, 32, 32, 3]."""
    return np.stack([_place(digit, (_SEED, drawing, copy)) for copy in range(copies)])


def _keep(path: Path, arrays: dict[str, Any]) -> None:
    """Stores arrays for the next process, which paints again if this fails."""
    partial = path.with_name(f"{path.stem}-{os.getpid()}.part.npz")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(partial, **arrays)
        os.replace(partial, path)
    except OSError:
        partial.unlink(missing_ok=True)
