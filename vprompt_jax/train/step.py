"""The train step and the evaluation step, pmapped over all devices of all processes."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from vprompt_jax.data.augment import augment
from vprompt_jax.model import PromptedCLIP
from vprompt_jax.train import keys

AXIS = "batch"
Sums = dict[str, jax.Array]  # of a metric over examples; "count" is what to divide by


class TrainState(flax.struct.PyTreeNode):
    """What changes during training; the frozen weights are not in it.

    Attributes:
      step: int32 scalar, number of updates done.
      params: trained parameters, by part.
      opt_state: of the optimiser.
    """

    step: jax.Array
    params: Mapping[str, Any]
    opt_state: Any


def variables_of(params: Mapping[str, Any], frozen: Mapping[str, Any]) -> dict[str, Any]:
    """All variables of a `PromptedCLIP`: the trained ones beside the frozen ones."""
    return {**frozen, "params": {**frozen["params"], **params}}


def _sums(logits: jax.Array, batch: Mapping[str, jax.Array], out: Mapping[str, jax.Array]) -> Sums:
    weight = batch["weight"]
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
    hits = (jnp.argmax(logits, -1) == batch["label"]).astype(jnp.float32)
    sums = {
        "loss": jnp.sum(losses * weight),
        "accuracy": jnp.sum(hits * weight),
        "count": jnp.sum(weight),
    }
    if "marks" in out:
        active = jnp.broadcast_to(out["active"], out["marks"].shape).astype(jnp.float32)
        on = jnp.sum(out["marks"] * active, (1, 2)) / jnp.maximum(jnp.sum(active, (1, 2)), 1.0)
        sums["regions_on"] = jnp.sum(jax.lax.stop_gradient(on) * weight)
    return sums


def noise_keys(root: jax.Array, step: jax.Array, index: jax.Array) -> jax.Array:
    """Keys [B] of the Gumbel noise at a step, of the examples with indices int32 [B]."""
    return keys.per_example(jax.random.fold_in(keys.stream(root, "noise"), step), index)


def evaluation_places(root: jax.Array, index: jax.Array) -> jax.Array:
    """Keys [B] that place a random patch at evaluation, the same at every evaluation."""
    return keys.per_example(keys.stream(root, "place at evaluation"), index)


def make_train_step(
    model: PromptedCLIP,
    optimizer: optax.GradientTransformation,
    temperature: Callable[[jax.Array], jax.Array] | None,
    augmentation: str = "none",
) -> Callable[..., tuple[TrainState, Sums]]:
    """Builds the one train step.

    Args:
      model: the parts.
      optimizer: of the trained tree.
      temperature: step -> Gumbel temperature; None for a model without a mask.
      augmentation: of the images, see `data.augment`.

    Returns:
      A pmapped function (state, frozen, root, batch) -> (state, sums). State, frozen weights and
      the root key are replicated, without a device axis; the state is donated. Batches are those
      of `data.pipeline`. Gradients and sums are added over all devices and the update divides by
      the number of examples, so padding and uneven batches change nothing.
    """

    # The root key is an argument: a constant would compile every seed anew.
    def step(state: TrainState, frozen, root, batch) -> tuple[TrainState, Sums]:
        draws: dict[str, Any] = {}
        # VP draws one place per step, the same for the whole batch.
        draws["place_keys"] = jax.random.fold_in(keys.stream(root, "place"), state.step)[None]
        if temperature is not None:
            draws["noise_keys"] = noise_keys(root, state.step, batch["index"])
            draws["temperature"] = temperature(state.step)
        crops = jax.random.fold_in(keys.stream(root, "augment"), state.step)
        images = augment(batch["image"], keys.per_example(crops, batch["index"]), augmentation)

        def loss_sum(params):
            variables = variables_of(params, frozen)
            logits, out = model.apply(variables, images, **draws)
            sums = _sums(logits, batch, out)
            return sums["loss"], sums

        gradient, sums = jax.grad(loss_sum, has_aux=True)(state.params)
        gradient, sums = jax.lax.psum((gradient, sums), AXIS)
        gradient = jax.tree.map(lambda g: g / sums["count"], gradient)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        sums["gradient_norm"] = optax.tree.norm(gradient) * sums["count"]
        return TrainState(state.step + 1, params, opt_state), sums

    return jax.pmap(
        step, AXIS, in_axes=(None, None, None, 0), out_axes=(None, None), donate_argnums=0
    )


def make_eval_step(model: PromptedCLIP) -> Callable[..., Sums]:
    """Builds the evaluation step: (params, frozen, root, batch) -> sums over the global batch.

    Inference: marks by argmax, a random patch at a place fixed per example.
    """

    def step(params, frozen, root, batch) -> Sums:
        logits, out = model.apply(
            variables_of(params, frozen),
            batch["image"],
            place_keys=evaluation_places(root, batch["index"]),
        )
        return jax.lax.psum(_sums(logits, batch, out), AXIS)

    return jax.pmap(step, AXIS, in_axes=(None, None, None, 0), out_axes=None)
