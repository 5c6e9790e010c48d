"""The train step and the evaluation step, which run on all devices of all processes."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from vprompt_jax.adaptation.model import AdaptedCLIP
from vprompt_jax.adaptation.variables import for_inference, variables_of
from vprompt_jax.clip.layers import BLOCK_INPUT
from vprompt_jax.data.augment import augment
from vprompt_jax.parts import Context, SelectedWeights
from vprompt_jax.process.parallel import AXIS, on_all_devices
from vprompt_jax.schema.sections import Augmentation, Remat
from vprompt_jax.train import guard
from vprompt_jax.train.optimizer import learned

# What the backward pass keeps: everything; matrix products alone; the blocks' inputs alone.
REMAT: dict[Remat, Any] = {
    "none": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "blocks": jax.checkpoint_policies.save_only_these_names(BLOCK_INPUT),
}
Batch = Mapping[str, jax.Array]
Sums = dict[str, jax.Array]  # of a metric over examples; "count" is what to divide by
Values = dict[str, jax.Array]  # scheduled values by name


class TrainState(flax.struct.PyTreeNode):
    """What changes during training; the frozen weights are not in it.

    Attributes:
      step: int32 scalar, number of updates done.
      params: parameters by part, which gradients train.
      assigned: arrays by name that a part assigns (`Part.assignment`) or a solver finds
        (`Part.arrays`) instead.
      opt_state: of the optimiser of the parameters.
      bad_steps: int32 scalar, number of steps in a row that were not applied (`guard`).
      gradient_norms: float32 scalars by part, of the last step, as they came.
    """

    step: jax.Array
    params: Mapping[str, Any]
    assigned: Mapping[str, Any]
    opt_state: Any
    bad_steps: jax.Array
    gradient_norms: Mapping[str, jax.Array]

    @property
    def learned(self) -> Mapping[str, Any]:
        """Parameters to evaluate and keep: `params`, or their moving average where one is kept."""
        average: Mapping[str, Any] = learned(self.params, self.opt_state)
        return average


def _sums(model: AdaptedCLIP, logits: jax.Array, batch: Batch, out: Mapping[str, Any]) -> Sums:
    """Sums over the examples of a batch, padding aside."""
    weight = batch["weight"]
    hits = (jnp.argmax(logits, -1) == batch["label"]).astype(jnp.float32)
    sums = {
        "loss": jnp.sum(model.losses(logits, batch["label"]) * weight),
        "accuracy": jnp.sum(hits * weight),
        "count": jnp.sum(weight),
    }
    return sums | {name: jnp.sum(value * weight) for name, value in out["metrics"].items()}


def applied(
    model: AdaptedCLIP, variables: Mapping[str, Any], batch: Batch, context: Context
) -> tuple[jax.Array, Mapping[str, Any]]:
    """Logits and outputs of a batch, which holds images or cached activations and says so."""
    if "activation" in batch:
        return model.apply(variables, batch["activation"], method="from_activation")
    return model.apply(variables, batch["image"], context)


def make_train_step(
    model: AdaptedCLIP,
    optimizer: optax.GradientTransformation,
    values: Callable[[jax.Array], Values],
    *,
    weights: Mapping[str, SelectedWeights],
    augmentation: Augmentation = "none",
    remat: Remat = "none",
    class_weights: np.ndarray | None = None,
    label_smoothing: float = 0.0,
    parts: int = 1,
) -> Callable[..., tuple[TrainState, Sums]]:
    """Builds the one train step.

    Args:
      model: the CLIP with its parts.
      optimizer: of the trained tree.
      values: step -> what the parts' schedules give.
      weights: parts that replace some of the tower's weights, by name.
      augmentation: of the images, see `data.augment`.
      remat: a name of `REMAT`: what the backward pass computes again instead of keeping.
      class_weights: float32 [C], of the examples' losses by class; None for 1 each.
      label_smoothing: share of a label that the loss spreads over all classes.
      parts: of a device's batch, taken one after another; they divide it.

    Returns:
      A function (state, frozen, root, batch) -> (state, sums) on all devices. State, frozen weights
      and the root key are replicated; the state is donated. Batches are those of `data.pipeline`.
      Gradients and sums are added over all devices and the update divides by the number of
      examples, so padding and uneven batches change nothing. A step that is not finite changes
      nothing but the step number; the sums count it as "skipped".
    """

    def apply(params: Any, assigned: Any, frozen: Any, batch: Batch, context: Context) -> Any:
        variables = variables_of(params, assigned, frozen, weights)
        return applied(model, variables, batch, context)

    if REMAT[remat] is not None:
        apply = jax.checkpoint(apply, policy=REMAT[remat])

    def summed(state: TrainState, frozen: Any, root: jax.Array, batch: Batch) -> tuple[Any, Sums]:
        """Sums of the gradient and of the metrics over the examples of a batch."""
        context = Context(root, batch["index"], state.step, values(state.step))
        if "image" in batch:
            images = augment(batch["image"], context.example_keys("augment"), augmentation)
            batch = {**batch, "image": images}

        def loss_sum(params: Any) -> tuple[jax.Array, Sums]:
            logits, out = apply(params, state.assigned, frozen, batch, context)
            weight = batch["weight"]
            if class_weights is not None:
                weight = weight * jnp.asarray(class_weights)[batch["label"]]
            losses = model.losses(logits, batch["label"], label_smoothing)
            if "penalty" in out:
                losses = losses + out["penalty"]
            loss = jnp.sum(losses * weight)
            return loss, _sums(model, logits, batch, out)

        return jax.grad(loss_sum, has_aux=True)(state.params)

    # The root key is an argument: a constant would compile every seed anew.
    def step(
        state: TrainState, frozen: Any, root: jax.Array, batch: Batch
    ) -> tuple[TrainState, Sums]:
        of_part = functools.partial(summed, state, frozen, root)
        gradient, sums = of_part(batch) if parts == 1 else _added(of_part, batch, parts)
        gradient, sums = jax.lax.psum((gradient, sums), AXIS)
        gradient = jax.tree.map(lambda g: g / sums["count"], gradient)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        sums["gradient_norm"] = optax.tree.norm(gradient) * sums["count"]
        norms = {part: optax.tree.norm(tree) for part, tree in gradient.items()}
        after = state.replace(
            step=state.step + 1, params=params, opt_state=opt_state, gradient_norms=norms
        )
        return guard.keep_finite(state, after, sums)

    return on_all_devices(step, arguments=4, donate=(0,))


def _added(summed: Callable[[Batch], Any], batch: Batch, parts: int) -> Any:
    """The sum of `summed` over equal parts of a batch, which are in memory one at a time."""
    stacked = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), batch)

    def add(total: Any, part: Batch) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, summed(part)), None

    shapes = jax.eval_shape(summed, jax.tree.map(lambda x: x[0], stacked))
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return jax.lax.scan(add, nothing, stacked)[0]


def make_inference(
    model: AdaptedCLIP,
    weights: Mapping[str, SelectedWeights],
    values: Mapping[str, float] | None = None,
) -> Callable[..., tuple[jax.Array, Mapping[str, Any]]]:
    """(params, assigned, frozen, root, batch) -> logits and outputs of a batch, without noise.

    `values` are the context's, for a part's `controls` or assignment.
    """
    given = {name: jnp.float32(value) for name, value in (values or {}).items()}

    def infer(params: Any, assigned: Any, frozen: Any, root: jax.Array, batch: Batch) -> Any:
        variables = variables_of(params, assigned, frozen, weights)
        return applied(model, variables, batch, Context(root, batch["index"], values=given))

    return infer


def make_eval_step(
    model: AdaptedCLIP,
    weights: Mapping[str, SelectedWeights],
    values: Mapping[str, float] | None = None,
) -> Callable[..., Callable[[Batch], tuple[Sums, jax.Array, jax.Array]]]:
    """Builds the evaluation step: (params, assigned, frozen, root) -> batch -> (sums, logits,
    index).

    What depends on the parameters alone, such as learned class texts, is computed when they are
    given, not with every batch. Sums are over the batch. Logits [B, C] and the examples' indices
    [B] are the whole batch's, on every process; the index of padding is -1. Inference: no noise,
    and whatever is random is fixed per example. `values` are those of `make_inference`.
    """
    infer = make_inference(model.at_inference(), weights, values)

    def step(params: Any, assigned: Any, frozen: Any, root: jax.Array, batch: Batch) -> Any:
        logits, out = infer(params, assigned, frozen, root, batch)
        sums = jax.lax.psum(_sums(model, logits, batch, out), AXIS)
        return sums, *jax.lax.all_gather((logits, batch["index"]), AXIS, tiled=True)

    on_batch = on_all_devices(step, arguments=5)

    def given(params: Any, assigned: Any, frozen: Any, root: jax.Array) -> Any:
        params, frozen = for_inference(model, params, frozen, weights)
        return functools.partial(on_batch, params, assigned, frozen, root)

    return given
