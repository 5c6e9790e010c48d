"""One row of the table: a method on a tower at a batch size, ready to be measured."""

import dataclasses
import functools
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from vprompt_jax import config as config_lib
from vprompt_jax.adaptation.model import PromptedCLIP
from vprompt_jax.benchmark.measure import Cost, cost_of, counted_compilations
from vprompt_jax.clip.checkpoints.load import variable_shapes
from vprompt_jax.clip.model import CLIP
from vprompt_jax.clip.variants import VARIANTS
from vprompt_jax.data import from_arrays, pipeline
from vprompt_jax.process.errors import UserError
from vprompt_jax.train import step as step_lib
from vprompt_jax.train.assemble import Run, run_around
from vprompt_jax.train.cache import with_prefix


def random_weights(name: str, dtype: jnp.dtype) -> tuple[CLIP, dict[str, Any]]:
    """A public variant with random weights, whose speed is that of the real ones.

    Raises:
      UserError: if there is no such variant.
    """
    if name not in VARIANTS:
        raise UserError(f"no variant {name!r}; there are {', '.join(VARIANTS)}")
    config = VARIANTS[name]
    rng = np.random.default_rng(0)
    flat = {}
    for path, shape in variable_shapes(config).items():
        fan_in = max(int(np.prod(shape[:-1])), 1)
        values = rng.standard_normal(shape, np.float32) * fan_in**-0.5
        if path[-1] in ("scale", "var"):
            values = np.ones(shape, np.float32)
        flat[path] = np.asarray(values, np.float32 if len(shape) < 2 else dtype)
    return CLIP(config, dtype), traverse_util.unflatten_dict(flat)


@dataclasses.dataclass
class CompiledStep:
    """A train step with everything it needs, and its costs.

    Attributes:
      name: for the table.
      batch_size: images a step.
      parameters: trained.
      cost: of the compiled step.
      bytes_per_image: sent to the device.
      compilations: programs compiled in three steps; None if none was to be done.
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
    _model: PromptedCLIP

    @functools.cached_property
    def floor(self) -> float | None:
        """FLOPs of the forward pass and of the gradient for the activation that training enters
        the frozen tower with: no method that trains there can do with less. None without a tower
        (a head on cached features) or without counts. A compilation, when first asked for."""
        if self.cost.flops is None or self._model.start == self._model.clip.config.depth:
            return None
        frozen, _, batch = self._rest
        return floor_flops(self._model, frozen, batch["image"])

    @property
    def flops_over_floor(self) -> float | None:
        """FLOPs over the least; None where either is not known."""
        if self.cost.flops is None or not self.floor:
            return None
        return self.cost.flops / self.floor

    @property
    def flops_per_image(self) -> float | None:
        """FLOPs of all devices together, by image of the global batch; None if not counted."""
        if self.cost.flops is None:
            return None
        return self.cost.flops * jax.device_count() / self.batch_size

    def run_step(self) -> Any:
        """Does one step; its state is kept for the next."""
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
      config: of the method; its batch size and cache mode are used.
      name: for the table.
      clip: the frozen CLIP.
      variables: its variables.
      classes: number of classes.
      workdir: for a cache on disk.
      run_steps: do three steps and count what they compile.

    Raises:
      UserError: if the method does not fit the tower.
    """
    config = config_lib.resolve(config)
    run = _run(config, clip, variables, classes)
    run = with_prefix(run, workdir)
    assert run.dataset is not None, "a run around random images has them"
    batch = next(
        pipeline.train_batches(
            run.dataset.train, batch_size=config.optim.batch_size, epochs=1, seed=0, start=0,
            workers=1,
        )
    )  # fmt: skip
    placed = pipeline.to_devices(batch)
    step_of = functools.partial(
        step_lib.make_train_step,
        optimizer=run.optimizer(),
        temperature=run.temperature if run.model.mask is not None else None,
        remat=config.model.remat,
    )
    train_step: Any = step_of(run.model)
    state = run.initial_state()
    rest = (run.frozen, run.root, placed)
    compilations = None
    if run_steps:
        with counted_compilations() as counted:
            for _ in range(3):
                state, _ = train_step(state, *rest)
        compilations = counted()
    cost = cost_of(train_step.lower(state, *rest).compile())
    if run.model.mask is not None and cost.flops is not None:
        # The compiler counts a loop's body once, however often it runs: count without the loop
        # (and so without the generator's second forward pass, which saves memory).
        whole = run.model.clone(mask=run.model.mask.clone(at_once=sys.maxsize))
        whole_step: Any = step_of(whole)
        counts = cost_of(whole_step.lower(state, *rest).compile())
        cost = dataclasses.replace(cost, flops=counts.flops, bytes=counts.bytes)
    count = sum(leaf.size for leaf in jax.tree.leaves(step_lib.trained(state.params)))
    return CompiledStep(
        name=name,
        batch_size=config.optim.batch_size,
        parameters=count,
        cost=cost,
        bytes_per_image=sum(v.nbytes for v in batch.values()) // config.optim.batch_size,
        compilations=compilations,
        _step=train_step,
        _state=state,
        _rest=rest,
        _model=run.model,
    )


def _run(config: Any, clip: CLIP, variables: dict[str, Any], classes: int) -> Run:
    rng = np.random.default_rng(0)
    side = clip.config.image_resolution
    count = max(config.optim.batch_size, classes)
    images = rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    labels = np.arange(count) % classes
    names = [f"thing {i}" for i in range(classes)]
    dataset = from_arrays(images, labels, names, test=(images, labels))
    return run_around(
        config, clip, variables, dataset.class_names, ["This is a photo of a {}"],
        dataset=dataset, steps=1000, steps_per_epoch=100,
    )  # fmt: skip


def floor_flops(model: PromptedCLIP, frozen: Any, images: jax.Array) -> float | None:
    """Per device: forward and input gradient of the bare tower from where training enters it."""
    start = model.start
    if start is None:
        side = model.resolution
        shape: tuple[int, ...] = (images.shape[1], side, side, 3)
        dtype = jnp.dtype(jnp.float32)
    else:
        shape, dtype = images.shape[1:], images.dtype

    def features(frozen: Any, x: jax.Array) -> jax.Array:
        clip = {**frozen, "params": frozen["params"]["clip"]}
        if "batch_stats" in frozen:
            clip["batch_stats"] = frozen["batch_stats"]["clip"]
        made: Any = model.clip.apply(clip, x, start=start, method="encode_image")
        return jnp.square(made.astype(jnp.float32)).sum()

    gradient = jax.jit(functools.partial(jax.value_and_grad, argnums=1)(features))
    x = jax.ShapeDtypeStruct(shape, dtype)
    return cost_of(gradient.lower(frozen, x).compile()).flops
