"""Compiles a method's train step on a tower at a batch size, for one row of the table."""

import dataclasses
import functools
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vprompt_jax import config as config_lib
from vprompt_jax.adaptation import AdaptedCLIP, adapt
from vprompt_jax.benchmark.measure import Cost, cost_of, counted_compilations
from vprompt_jax.clip.model import CLIP
from vprompt_jax.config import Config
from vprompt_jax.data import from_arrays, pipeline
from vprompt_jax.process import parallel
from vprompt_jax.train import step as step_lib
from vprompt_jax.train.cache import with_prefix
from vprompt_jax.train.training import Training, around, trained_counts


@dataclasses.dataclass
class CompiledStep:
    """A train step with everything it needs, and its costs.

    Attributes:
      name: name of the row in the table.
      batch_size: images per step.
      parameters: number of trained parameters.
      cost: cost of the compiled step.
      bytes_per_image: bytes sent to the device per image.
      compilations: number of programs compiled during three steps; None if no step was run.
    """

    name: str
    batch_size: int
    parameters: int
    cost: Cost
    bytes_per_image: int
    compilations: int | None
    _step: Any
    _state: Any
    _rest: tuple[Any, ...]
    _model: AdaptedCLIP

    @functools.cached_property
    def floor(self) -> float | None:
        """The least FLOPs of a method that trains at the same place in the tower.

        These are the FLOPs of the frozen tower's forward pass from where training enters it, and of
        the gradient for the activation there. None if the tower does not run (a head on cached
        features) or FLOPs are not counted. The first access compiles a program.
        """
        frozen, _, batch = self._rest
        on_features = "activation" in batch and self._model.entry == self._model.clip.config.depth
        if self.cost.flops is None or on_features:
            return None
        return floor_flops(self._model, frozen, batch)

    @property
    def flops_over_floor(self) -> float | None:
        """FLOPs divided by `floor`; None if either is unknown."""
        if self.cost.flops is None or not self.floor:
            return None
        return self.cost.flops / self.floor

    @property
    def flops_per_image(self) -> float | None:
        """FLOPs of all devices together per image of the global batch; None if not counted."""
        if self.cost.flops is None:
            return None
        return self.cost.flops * jax.device_count() / self.batch_size

    def run_step(self) -> Any:
        """Runs one step, and keeps its state for the next."""
        self._state, sums = self._step(self._state, *self._rest)
        return sums


def compile_step(
    config: Any,
    name: str,
    clip: CLIP,
    variables: dict[str, Any],
    classes: int,
    workdir: Path,
    *,
    run_steps: bool = True,
) -> CompiledStep:
    """Compiles the train step of a config on random images.

    Args:
      config: config of the method, including its batch size and cache mode.
      name: name of the row in the table.
      clip: the frozen CLIP.
      variables: its variables.
      classes: number of classes.
      workdir: folder for a cache on disk.
      run_steps: whether to run three steps and count the programs that they compile.

    Raises:
      UserError: if the method does not fit the tower.
    """
    config = config_lib.resolve(config)
    run = _training(config, clip, variables, classes)
    dataset = with_prefix(run.adaptation, run.dataset, workdir)
    batch = next(
        pipeline.train_batches(
            dataset.train,
            batch_size=config.optim.batch_size,
            epochs=1,
            seed=0,
            start=0,
            workers=1,
            parts=config.optim.parts,
        )
    )
    placed = parallel.to_devices(batch)
    step_of = functools.partial(
        step_lib.make_train_step,
        optimizer=run.optimizer(),
        values=run.values,
        weights=run.adaptation.weights,
        remat=config.model.remat,
        label_smoothing=config.optim.label_smoothing,
        parts=config.optim.parts,
    )
    model = run.adaptation.model
    train_step: Any = step_of(model)  # a jitted function, which its type does not tell
    state = run.initial_state()
    rest = (run.adaptation.frozen, run.root, placed)
    compilations = None
    if run_steps:
        with counted_compilations() as counted:
            for _ in range(3):
                state, _ = train_step(state, *rest)
        compilations = counted()
    cost = cost_of(train_step.lower(state, *rest).compile())
    if (whole := _without_loops(model)) != model and cost.flops is not None:
        whole_step: Any = step_of(whole)
        counts = cost_of(whole_step.lower(state, *rest).compile())
        cost = dataclasses.replace(cost, flops=counts.flops, bytes=counts.bytes)
    return CompiledStep(
        name=name,
        batch_size=config.optim.batch_size,
        parameters=sum(trained_counts(state.params).values()),
        cost=cost,
        bytes_per_image=sum(v.nbytes for v in batch.values()) // config.optim.batch_size,
        compilations=compilations,
        _step=train_step,
        _state=state,
        _rest=rest,
        _model=model,
    )


def _without_loops(model: AdaptedCLIP) -> AdaptedCLIP:
    """The same model without loops over regions, to count FLOPs by.

    The compiler counts a loop's body once, however often it runs. Without the loop, the count also
    lacks the mask generator's second forward pass, which only saves memory.
    """
    parts = tuple(
        dataclasses.replace(part, module=part.module.clone(at_once=sys.maxsize))
        if hasattr(part.module, "at_once")
        else part
        for part in model.parts
    )
    return model.clone(parts=parts)


def _training(config: Config, clip: CLIP, variables: dict[str, Any], classes: int) -> Training:
    """Sets up a training of 1,000 steps on random images."""
    rng = np.random.default_rng(0)
    side = clip.config.image_resolution
    count = max(config.optim.batch_size, classes)
    images = rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    labels = np.arange(count) % classes
    names = [f"thing {i}" for i in range(classes)]
    dataset = from_arrays(images, labels, names, test=(images, labels))
    adaptation = adapt(config, clip, variables, dataset.class_names, ["This is a photo of a {}"])
    run = around(adaptation, dataset)
    return dataclasses.replace(run, steps=1000 if run.steps else 0, steps_per_epoch=100)


def floor_flops(model: AdaptedCLIP, frozen: Any, batch: Mapping[str, jax.Array]) -> float | None:
    """FLOPs per device of the bare tower's forward pass and input gradient, from the entry on."""
    if "activation" in batch:
        start, like = model.entry, batch["activation"]
        shape, dtype = like.shape[1:], like.dtype
    else:
        start, side = None, model.resolution
        shape, dtype = (batch["image"].shape[1], side, side, 3), jnp.float32

    def features(frozen: Any, x: jax.Array) -> jax.Array:
        clip = {**frozen, "params": frozen["params"]["clip"]}
        if "batch_stats" in frozen:
            clip["batch_stats"] = frozen["batch_stats"]["clip"]
        output: Any = model.clip.apply(clip, x, start=start, method="encode_image")
        return jnp.square(output.astype(jnp.float32)).sum()

    gradient = jax.jit(functools.partial(jax.value_and_grad, argnums=1)(features))
    x = jax.ShapeDtypeStruct(shape, dtype)
    return cost_of(gradient.lower(frozen, x).compile()).flops
