"""What a run would take: images, steps, parameters, downloads, time and memory."""

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from vprompt_jax import data
from vprompt_jax.adaptation import load_clip
from vprompt_jax.adaptation.build import parts_of
from vprompt_jax.benchmark import compiled, measure
from vprompt_jax.clip.checkpoints import locate
from vprompt_jax.clip.checkpoints.drawn import random_weights
from vprompt_jax.config import Config, resolve
from vprompt_jax.data import catalogue, pipeline, splits, tfds_source
from vprompt_jax.evaluate import also
from vprompt_jax.process.errors import UserError
from vprompt_jax.process.printable import duration
from vprompt_jax.train.training import check_warmup

_REPEATS = 5  # turns of the timed step


def describe(config: Any, overridden: Iterable[str] = ()) -> str:
    """Compiles and times a config's train step on random images, and says what a run would take.

    Nothing is downloaded and nothing written. Weights that are not there are random ones of the
    same tower, which take as long.

    Args:
      config: a `ConfigDict`, as for `launch`.
      overridden: dotted keys that the command line sets.

    Raises:
      UserError: if the config, the weights or the data are at fault, or the tower of weights that
        are not there is unknown.
    """
    resolved = resolve(config, overridden)
    lines = []
    if resolved.data.source != "tfds":  # which would download what is not there
        also.find([resolved])
    (clip, variables), line = _weights(resolved)
    lines += [line] if line else []
    sizes, classes, line = _images(resolved, clip)
    lines += [line] if line else []
    shown = ", ".join(f"{count:,} {name}" for name, count in sizes.items())
    lines.append(f"images      {shown}, of {classes} classes")
    per_epoch = pipeline.steps_per_epoch(sizes["train"], resolved.optim.batch_size)
    steps = resolved.optim.epochs * per_epoch if resolved.trained else 0
    check_warmup(resolved, steps)
    timed = config.copy_and_resolve_references()
    timed.optim.warmup_steps, timed.optim.warmup_fraction = None, 0.0  # a step takes as long
    with tempfile.TemporaryDirectory() as folder:
        made = compiled.compile_step(
            timed, "", clip, variables, classes, Path(folder), run_steps=False
        )
    lines.append(f"parameters  {made.parameters:,} trained")
    for part in parts_of(resolved.parts):
        solver = part.solver(resolved.parts[part.name])
        if solver is not None and not solver.before_steps:
            about = f"the {part.name} is solved at once, from features computed once"
            return "\n".join([*lines, f"steps       none: {about}"])
    if not steps:
        return "\n".join([*lines, "steps       none: nothing is trained"])
    (seconds,) = measure.seconds([made.run_step], _REPEATS)
    lines.append(
        f"steps       {steps:,} of {resolved.optim.batch_size} images ({resolved.optim.epochs:,} "
        f"epochs)"
    )
    lines.append(
        f"time        {duration(steps * seconds)} on {jax.device_count()} x "
        f"{jax.devices()[0].device_kind} ({seconds:.3g} s a step; steps alone, without reading, "
        "evaluation and compilation)"
    )
    memory = made.cost.memory_bytes
    lines.append(f"memory      {memory / 2**20:,.0f} MiB per device for a step")
    return "\n".join(lines)


def _weights(config: Config) -> tuple[Any, str]:
    """The CLIP, or one of the same size, and a line if it would have to be downloaded."""
    name = config.model.checkpoint
    try:
        locate.locate(name, offline=True)
    except UserError:
        if name not in locate.OPENAI:
            raise
        random = random_weights(name, jnp.dtype(config.model.dtype))
        size = sum(leaf.size for leaf in jax.tree.leaves(random[1])) * 2  # OpenAI's are float16
        return random, f"download    {name} from OpenAI, about {size / 1e6:,.0f} MB"
    return load_clip(config), ""


def _images(config: Config, clip: Any) -> tuple[dict[str, int], int, str]:
    """Images by split, number of classes, and a line if they would have to be downloaded."""
    c = config.data
    row = None if c.label else catalogue.find(c.name)
    if c.source == "tfds":
        builder = tfds_source.builder((row and row.tfds) or c.name, c.dir)
        if not tfds_source.is_prepared(builder):
            if row is None or row.sizes is None:
                raise UserError(
                    f"{c.name} is not on this disk, and how many images it has is only known then: "
                    f"get it by vprompt data {c.name} --download"
                )
            sizes = _cut(config, row.sizes, row.classes)
            known = [int(about.size) for about in (builder.url_infos or {}).values()]
            size = f"{sum(known) / 1e6:,.0f} MB" if known else "of unknown size"
            return sizes, row.classes, f"download    {c.name}, {size}"
    side = clip.config.image_resolution
    dataset = data.load(c, config.protocol, side, resize=clip.config.resize, decoded=False)
    return {n: len(s) for n, s in dataset.splits()}, len(dataset.class_names), ""


def _cut(config: Config, sizes: tuple[int, int, int], classes: int) -> dict[str, int]:
    """Sizes of the splits that `data.prepare` would make of splits of these sizes.

    VTAB-1k has test splits of its own, whose sizes the table of datasets does not have.
    """
    c = config.data
    train, val, test = sizes
    if vtab := c.split == "vtab":
        train, val, test = 800, 200, 0
    elif not val and (config.protocol == "val" or c.few_shot is not None):
        val = round(c.val_fraction * train)
        train -= val
    if c.few_shot is not None:
        train = c.few_shot * classes
        val = min(val, splits.validation_shots(c.few_shot, c.val_shots) * classes)
    if config.protocol == "paper":
        train, val = train + val if vtab else train, 0
    return {n: size for n, size in (("train", train), ("val", val), ("test", test)) if size}
