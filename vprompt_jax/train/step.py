"""The train step and the evaluation step, pmapped over all devices of all processes."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from vprompt_jax.adaptation.model import PromptedCLIP, variables_of
from vprompt_jax.clip.layers import BLOCK_INPUT
from vprompt_jax.data.augment import augment
from vprompt_jax.train import guard, keys

AXIS = "batch"
# Nothing; all but matrix products; all but the blocks' inputs.
REMAT = {
    "none": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "blocks": jax.checkpoint_policies.save_only_these_names(BLOCK_INPUT),
}
Sums = dict[str, jax.Array]  # of a metric over examples; "count" is what to divide by


class TrainState(flax.struct.PyTreeNode):
    """What changes during training; the frozen weights are not in it.

    Attributes:
      step: int32 scalar, number of updates done.
      params: parameters by part; see `trained`.
      opt_state: of the optimiser of the trained parts.
      bad_steps: int32 scalar, number of steps in a row that were not applied (`guard`).
      gradient_norms: float32 scalars by trained part, of the last step, as they came.
    """

    step: jax.Array
    params: Mapping[str, Any]
    opt_state: Any
    bad_steps: jax.Array
    gradient_norms: Mapping[str, jax.Array]


def trained(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parts that gradients train: all but "mapping", whose classes are assigned."""
    return {part: tree for part, tree in params.items() if part != "mapping"}


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
    *,
    augmentation: str = "none",
    remat: str = "none",
) -> Callable[..., tuple[TrainState, Sums]]:
    """Builds the one train step.

    Args:
      model: the parts.
      optimizer: of the trained tree.
      temperature: step -> Gumbel temperature; None for a model without a mask.
      augmentation: of the images, see `data.augment`.
      remat: a name of `REMAT`: what the backward pass computes again instead of keeping.

    Returns:
      A pmapped function (state, frozen, root, batch) -> (state, sums). State, frozen weights and
      the root key are replicated, without a device axis; the state is donated. Batches are those
      of `data.pipeline`. Gradients and sums are added over all devices and the update divides by
      the number of examples, so padding and uneven batches change nothing. A step that is not
      finite changes nothing but the step number; the sums count it as "skipped".
    """

    def apply(params, frozen, images, draws):
        return model.apply(variables_of(params, frozen), images, **draws)

    if REMAT[remat] is not None:
        apply = jax.checkpoint(apply, policy=REMAT[remat])

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

        def loss_sum(moving):
            logits, out = apply({**state.params, **moving}, frozen, images, draws)
            sums = _sums(logits, batch, out)
            return sums["loss"], sums

        gradient, sums = jax.grad(loss_sum, has_aux=True)(trained(state.params))
        gradient, sums = jax.lax.psum((gradient, sums), AXIS)
        gradient = jax.tree.map(lambda g: g / sums["count"], gradient)
        updates, opt_state = optimizer.update(gradient, state.opt_state, trained(state.params))
        params = {**state.params, **optax.apply_updates(trained(state.params), updates)}
        sums["gradient_norm"] = optax.tree.norm(gradient) * sums["count"]
        norms = {part: optax.tree.norm(tree) for part, tree in gradient.items()}
        after = TrainState(state.step + 1, params, opt_state, state.bad_steps, norms)
        return guard.keep_finite(state, after, sums)

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
