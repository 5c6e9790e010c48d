"""Prefix caching: activations below everything that is trained, computed once per image.

Where nothing below position l depends on what is trained, the activation there is the same at every
step (AP, arXiv 2604.06440; the linear probe is the case l = L). It is computed in one pass, stored,
and training and evaluation start from it.
"""

import dataclasses
import shutil
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import psutil

from vprompt_jax.adaptation.model import PromptedCLIP
from vprompt_jax.data.dataset import Split
from vprompt_jax.process.errors import UserError
from vprompt_jax.train.assemble import Run
from vprompt_jax.train.evaluate import placed_batches
from vprompt_jax.train.step import AXIS

_SHARE = 0.5  # of the free memory or disk that a cache may take


def with_prefix(run: Run, workdir: Path) -> Run:
    """The run on cached activations, or the run itself where there is nothing to cache.

    Args:
      run: on images.
      workdir: where a cache on disk is kept; `remove` deletes it.

    Raises:
      UserError: under `cache.mode=on`, if something is trained at the pixels or it does not fit.
    """
    mode = run.config.cache.mode
    if mode == "off" or run.steps == 0:
        return run
    position = run.model.entry
    if not isinstance(position, int) or run.config.data.augment != "none":
        if mode == "on":
            raise UserError(
                "config.cache.mode=on: this method, or config.data.augment, changes the pixels or "
                "the tower's first layers, so there is nothing to cache; set config.cache.mode=auto"
            )
        return run
    dtype = jnp.dtype(run.config.cache.dtype)
    shape = _activation_shape(run, position)
    count = sum(len(split) for _, split in run.dataset.splits())
    size = count * int(np.prod(shape)) * dtype.itemsize
    on_disk = run.config.cache.storage == "disk"
    free = shutil.disk_usage(workdir).free if on_disk else psutil.virtual_memory().available
    said = (
        f"activations at position {position} of {count:,} images: {size / 1e9:.2f} GB as {dtype} "
        f"{'on disk' if on_disk else 'in memory'}"
    )
    if size > _SHARE * free:
        reason = f"{said}, over {_SHARE:.0%} of the {free / 1e9:.1f} GB free"
        if mode == "on":
            raise UserError(
                f"config.cache.mode=on: {reason}; choose config.cache.dtype=bfloat16, "
                "config.cache.storage=disk, a higher layer, or config.cache.mode=auto"
            )
        _say(f"not cached: {reason}")
        return run
    _say(said)
    step = _make_activation_step(run.model, position)
    made = {
        name: _cached(run, step, split, _store(workdir, name, len(split), shape, dtype, on_disk))
        for name, split in run.dataset.splits()
    }
    return dataclasses.replace(
        run,
        dataset=dataclasses.replace(run.dataset, **made),
        model=run.model.clone(start=position),
    )


def remove(workdir: Path) -> None:
    """Deletes the caches that finished or interrupted runs left on disk."""
    for path in workdir.glob("activations-*.bin"):
        path.unlink()


def _say(text: str) -> None:
    if jax.process_index() == 0:
        print(text, file=sys.stderr)


def _activation_shape(run: Run, position: int) -> tuple[int, ...]:
    side = run.model.resolution
    image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.uint8)
    made = jax.eval_shape(
        lambda v, x: run.model.apply(v, x, position, method="activation"), run.frozen, image
    )
    return made.shape[1:]


def _store(workdir: Path, name: str, count: int, shape, dtype, on_disk: bool) -> np.ndarray:
    if not on_disk:
        return np.empty((count, *shape), dtype)
    path = workdir / f"activations-{name}-{jax.process_index()}.bin"
    return np.memmap(path, dtype, "w+", shape=(count, *shape))


def _make_activation_step(model: PromptedCLIP, position: int):
    """(frozen, batch) -> activations and indices of the whole batch, on every process."""

    def step(frozen, batch):
        made = model.apply(frozen, batch["image"], position, method="activation")
        return jax.lax.all_gather((made, batch["index"]), AXIS, tiled=True)

    return jax.pmap(step, AXIS, in_axes=(None, 0), out_axes=None)


def _cached(run: Run, step, split: Split, store: np.ndarray) -> Split:
    for batch in placed_batches(run, split):
        made, index = jax.device_get(step(run.frozen, batch))
        real = index >= 0
        store[index[real]] = made[real]
    return dataclasses.replace(split, fetch=lambda indices: store[indices])
