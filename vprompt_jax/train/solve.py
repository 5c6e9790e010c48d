"""Solves a part from cached image features in one go, in place of train steps."""

import jax
import numpy as np

from vprompt_jax.data.dataset import Split
from vprompt_jax.process import parallel
from vprompt_jax.process.errors import UserError
from vprompt_jax.train.step import TrainState
from vprompt_jax.train.training import Training


def solved(run: Training, state: TrainState) -> TrainState:
    """The state at the last step with the one trained part solved from cached features.

    Raises:
      UserError: if another part is trained, or the features are not cached.
    """
    solver = run.solver()
    assert solver is not None
    name, solve = solver
    switch = f"config.{name}.solver"
    if set(state.params) != {name}:
        raise UserError(f"{switch}=lbfgs trains the {name} alone: switch the other parts off")
    if (weights := run.config.optim.class_weights) != "none":
        raise UserError(
            f"{switch}=lbfgs weighs every image alike: set config.optim.class_weights=none, not "
            f"{weights}, or config.{name}.solver=sgd"
        )
    if smoothing := run.config.optim.label_smoothing:
        raise UserError(
            f"{switch}=lbfgs takes labels as they are: set config.optim.label_smoothing=0, not "
            f"{smoothing}, or config.{name}.solver=sgd"
        )
    train = run.dataset.train
    at_features = run.adaptation.model.entry == run.adaptation.model.clip.config.depth
    if (augment := run.config.data.augment) != "none":
        raise UserError(
            f"{switch}=lbfgs needs features that stay as they are, which "
            f"config.data.augment={augment} changes: set config.data.augment=none"
        )
    if train.content != "activation" or not at_features:
        raise UserError(f"{switch}=lbfgs needs the features: set config.cache.mode=on")

    def features(split: Split) -> tuple[np.ndarray, np.ndarray]:
        return split.fetch(np.arange(len(split))), split.labels

    val = run.dataset.val
    found = solve(state.params[name], features(train), None if val is None else features(val))
    params = {name: found}
    # Anew, since an average of the parameters is part of it.
    opt_state = run.optimizer().init(params)
    state = state.replace(step=np.int32(run.steps), params=params, opt_state=opt_state)
    return jax.device_put(state, parallel.replicated())
