"""Assigns a supervised tower's classes to the target's, before training or at every epoch (ILM)."""

import jax
import jax.numpy as jnp
import numpy as np

from vprompt_jax.adaptation.model import PromptedCLIP, variables_of
from vprompt_jax.data import pipeline
from vprompt_jax.heads import mapping
from vprompt_jax.train.assemble import Run
from vprompt_jax.train.evaluate import placed_batches
from vprompt_jax.train.step import AXIS, TrainState, evaluation_places


def is_due(run: Run, step: int) -> bool:
    """Whether the classes are assigned anew before the step (counted from 0)."""
    if run.model.head != "mapping":
        return False
    if run.config.head.mapping == "iterative":
        return step % run.steps_per_epoch == 0
    return run.config.head.mapping == "frequency" and step == 0


def make_count_step(model: PromptedCLIP, classes: int):
    """(params, frozen, root, batch) -> counts [C, K]: target classes taken for source classes."""

    def step(params, frozen, root, batch):
        _, out = model.apply(
            variables_of(params, frozen),
            batch["image"],
            place_keys=evaluation_places(root, batch["index"]),
        )
        sources = frozen["params"]["clip"]["classifier"]["bias"].shape[0]
        hits = jnp.zeros((classes, sources)).at[batch["label"], out["source"]].add(batch["weight"])
        return jax.lax.psum(hits, AXIS)

    return jax.pmap(step, AXIS, in_axes=(None, None, None, 0), out_axes=None)


def assigned(count_step, run: Run, state: TrainState) -> TrainState:
    """The state with the classes assigned by what the training images are now taken for."""
    counts = 0.0
    for batch in placed_batches(run, run.dataset.train):
        made = count_step(state.params, run.frozen, run.root, batch)
        counts = counts + np.asarray(made, np.float64)
    chosen = jax.device_put(mapping.frequency_map(counts), pipeline.replicated_sharding())
    return state.replace(params={**state.params, "mapping": {"label_map": chosen}})
