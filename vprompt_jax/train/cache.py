"""Prefix caching: activations below everything that is trained, computed once per image.

Where nothing below position l depends on what is trained, the activation there is the same at every
step (AP, arXiv 2604.06440; the linear probe is the case l = L). It is computed in one pass, stored,
and training and evaluation start from it.
"""

import dataclasses
import shutil
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import psutil

from vprompt_jax.adaptation import Adaptation, AdaptedCLIP
from vprompt_jax.data.dataset import Dataset, Split
from vprompt_jax.process import cluster, finite
from vprompt_jax.process.errors import UserError
from vprompt_jax.process.parallel import AXIS, on_all_devices
from vprompt_jax.train.evaluate import placed_batches

_SHARE = 0.5  # of the free memory or disk that a cache may take


def with_prefix(adaptation: Adaptation, dataset: Dataset, workdir: Path) -> Dataset:
    """The dataset as cached activations, or as it is where there is nothing to cache.

    Args:
      adaptation: the model, whose `entry` says where training enters the tower.
      dataset: of images.
      workdir: where a cache on disk is kept; `remove` deletes it.

    Raises:
      UserError: under `cache.mode=on`, if something is trained at the pixels or it does not fit; if
        an activation is not finite.
    """
    config, model = adaptation.config, adaptation.model
    mode = config.cache.mode
    if mode == "off":
        return dataset
    if not isinstance(model.entry, int) or config.data.augment != "none":
        if mode == "on":
            raise UserError(
                "config.cache.mode=on: this method, or config.data.augment, changes the pixels or "
                "the tower's first layers, so there is nothing to cache; set config.cache.mode=auto"
            )
        return dataset
    dtype = jnp.dtype(config.cache.dtype)
    shape = _activation_shape(model, adaptation.frozen)
    count = sum(len(split) for _, split in dataset.splits())
    size = count * int(np.prod(shape)) * dtype.itemsize
    on_disk = config.cache.storage == "disk"
    summary = (
        f"activations at position {model.entry} of {count:,} images: {size / 1e9:.2f} GB as "
        f"{dtype} {'on disk' if on_disk else 'in memory'}"
    )
    if (lacking := _lacking(size, workdir, on_disk)) is not None:
        reason = f"{summary}, {lacking}"
        if mode == "on":
            raise UserError(
                f"config.cache.mode=on: {reason}; choose config.cache.dtype=bfloat16, "
                f"{'' if on_disk else 'config.cache.storage=disk, '}a higher layer, or "
                "config.cache.mode=auto"
            )
        _say(f"not cached: {reason}")
        return dataset
    _say(summary)
    step = _make_activation_step(model)
    splits: dict[str, Any] = {}
    wider = [] if dtype == jnp.float32 else ["set config.cache.dtype=float32"]
    for name, split in dataset.splits():
        store = _store(workdir, name, len(split), shape, dtype, on_disk)
        batches = placed_batches(split, config.eval.batch_size, config.data.workers)
        for batch in batches:
            activation, index = jax.device_get(step(adaptation.frozen, batch))
            is_real = index >= 0  # padding has -1
            rows = index[is_real]
            store[rows] = activation[is_real]
            with finite.explained(f"the {name} split", adaptation.frozen, wider):
                finite.check("activations", store[rows])
        splits[name] = _cached(split, store)
    return dataclasses.replace(dataset, **splits)


def remove(workdir: Path) -> None:
    """Deletes this process's cache on disk, if there is one."""
    for path in workdir.glob(f"activations-*-{jax.process_index()}.bin"):
        path.unlink(missing_ok=True)


def remove_leftovers(workdir: Path) -> None:
    """Deletes what earlier processes left; to be called by one that holds the workdir, alone."""
    for path in workdir.glob("activations-*.bin"):
        path.unlink(missing_ok=True)


def _lacking(size: int, workdir: Path, on_disk: bool) -> str | None:
    """Why one process or another has no room for its cache; None, in all, if all have it.

    Args:
      size: of the cache of one process, in bytes.
      workdir: where a cache on disk is kept, a folder that all processes share.
      on_disk: whether it is kept there, not in memory.
    """
    free = shutil.disk_usage(workdir).free if on_disk else psutil.virtual_memory().available
    machines = cluster.gather([socket.gethostname(), free])
    hosts = [host for host, _ in machines]
    for host, room in machines:
        # Processes fill one disk together, and the memory of a machine with those beside them.
        sharers = len(hosts) if on_disk else hosts.count(host)
        if size * sharers > _SHARE * room:
            times = f" for each of {sharers} processes" if sharers > 1 else ""
            where = f" on {host}" if len(set(hosts)) > 1 else ""
            return f"over {_SHARE:.0%} of the {room / 1e9:.1f} GB free{where}{times}"
    return None


def _say(text: str) -> None:
    if jax.process_index() == 0:
        print(text, file=sys.stderr)


def _activation_shape(model: AdaptedCLIP, frozen: Mapping[str, Any]) -> tuple[int, ...]:
    image = jax.ShapeDtypeStruct((1, model.resolution, model.resolution, 3), jnp.uint8)
    activation = jax.eval_shape(lambda v, x: model.apply(v, x, method="activation"), frozen, image)
    return tuple(activation.shape[1:])


def _store(
    workdir: Path, name: str, count: int, shape: tuple[int, ...], dtype: Any, on_disk: bool
) -> np.ndarray:
    if not on_disk:
        return np.empty((count, *shape), dtype)
    path = workdir / f"activations-{name}-{jax.process_index()}.bin"
    return np.memmap(path, dtype, "w+", shape=(count, *shape))


def _make_activation_step(model: AdaptedCLIP) -> Callable[..., Any]:
    """(frozen, batch) -> activations and indices of the whole batch, on every process."""

    def step(frozen: Any, batch: Mapping[str, jax.Array]) -> Any:
        activation = model.apply(frozen, batch["image"], method="activation")
        return jax.lax.all_gather((activation, batch["index"]), AXIS, tiled=True)

    return on_all_devices(step, arguments=2)


def _cached(split: Split, store: np.ndarray) -> Split:
    return dataclasses.replace(split, fetch=lambda indices: store[indices], content="activation")
