"""The images that the mini CLIPs are trained and measured on."""

import dataclasses
import functools
import math
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from vprompt_jax.data import folder, images, scenes
from vprompt_jax.zoo import glyphs

_EVERY = 20  # of each class of photographs, the first of so many is kept unseen
UNSEEN_RENDERINGS = 4000


@dataclasses.dataclass(frozen=True)
class Labelled:
    """Images uint8 [N, 32, 32, 3] and their classes, int32 [N]."""

    images: np.ndarray
    labels: np.ndarray


@dataclasses.dataclass(frozen=True)
class Photographs:
    """Photographs of a folder, by class; see `photographs`."""

    classes: tuple[str, ...]
    train: Labelled
    unseen: Labelled


def photographs(root: Path, workers: int = 2) -> Photographs:
    """Reads a folder of classes and keeps one photograph in twenty of each class unseen.

    Raises:
      UserError: as `data.folder.load`.
    """
    dataset = folder.load(root, scenes.SIDE, workers)
    split, _ = images.decoded(dataset.train, "stop")
    order = np.argsort(split.labels, kind="stable")
    rank = np.empty_like(order)
    counts = np.bincount(split.labels)
    rank[order] = np.concatenate([np.arange(n) for n in counts])
    kept = rank % _EVERY == 0

    def of(chosen: np.ndarray) -> Labelled:
        part = split.take(np.flatnonzero(chosen))
        return Labelled(part.fetch(np.arange(len(part))), part.labels)

    return Photographs(dataset.class_names, of(~kept), of(kept))


def _chunk(chunk: int, seed: int, fonts: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    return glyphs.render_set(1000, fonts, seed * 100_000 + chunk)


def renderings(path: Path, count: int, seed: int, fonts: tuple[str, ...]) -> Labelled:
    """Renders `count` glyphs (rounded up to thousands) on all cores, or reads earlier ones."""
    if not path.exists():
        work = functools.partial(_chunk, seed=seed, fonts=fonts)
        # Forking a process that has started JAX can deadlock.
        with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
            parts = list(pool.map(work, range(math.ceil(count / 1000))))
        drawn, labels = (np.concatenate(p) for p in zip(*parts, strict=True))
        partial = path.with_suffix(".part.npz")
        np.savez(partial, images=drawn, labels=labels)
        partial.replace(path)
    with np.load(path) as file:
        return Labelled(file["images"], file["labels"])
