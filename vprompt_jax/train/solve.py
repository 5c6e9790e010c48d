"""Lets a part's solver find it from cached image features, before train steps or without any."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from vprompt_jax.data.dataset import Split
from vprompt_jax.parts import Examples, Found, HeadInputs, Solver
from vprompt_jax.process import parallel
from vprompt_jax.process.errors import UserError
from vprompt_jax.train.step import TrainState
from vprompt_jax.train.training import Training


def started(run: Training, state: TrainState) -> TrainState:
    """The state with what the solver finds at the start.

    If no train steps follow, it is the state after the last step.

    Raises:
      UserError: if the features did not fit into the cache.
    """
    name, solver = _of(run)
    if run.dataset.train.content != "activation":
        raise UserError(
            f"{solver.asked} needs the features of all images, which do not fit into the cache: "
            "set config.cache.storage=disk or config.cache.dtype=bfloat16, or free some memory"
        )
    val = run.dataset.val
    found = solver.start(
        _at(name, state.params, state.assigned),
        _examples(run.dataset.train),
        None if val is None else _examples(val),
        _given(run, state.params, state.assigned),
    )
    params = {name: found.params} if name in state.params else {}
    # Anew, since an average of the parameters is part of it.
    opt_state = run.optimizer().init(params)
    step = state.step if solver.before_steps else np.int32(run.steps)
    state = state.replace(step=step, params=params, assigned=found.assigned, opt_state=opt_state)
    # From the host: an array of this process's devices cannot be put on those of others.
    return jax.device_put(jax.device_get(state), parallel.replicated())


def finished(run: Training, params: Mapping[str, Any], assigned: Mapping[str, Any]) -> Any:
    """The assigned arrays that the solver chooses on val for what has been learned.

    Without val they stay as they are.
    """
    val = run.dataset.val
    if val is None:
        return assigned
    name, solver = _of(run)
    at, given = _at(name, params, assigned), _given(run, params, assigned)
    found = solver.finish(at, _examples(val), given)
    return jax.device_put(jax.device_get(found), parallel.replicated())


def _of(run: Training) -> tuple[str, Solver]:
    solver = run.solver()
    assert solver is not None, "no part has a solver"
    return solver


def _at(name: str, params: Mapping[str, Any], assigned: Mapping[str, Any]) -> Found:
    """What a part has, on the host: a solver works on one device of each process."""
    return Found(*jax.device_get((params.get(name, {}), assigned)))


def _examples(split: Split) -> Examples:
    return Examples(split.fetch(np.arange(len(split))), split.labels)


def _given(run: Training, params: Mapping[str, Any], assigned: Mapping[str, Any]) -> HeadInputs:
    """What a head is given, outside of the model, as in `_at`."""
    adaptation = run.adaptation
    model: Any = adaptation.model
    variables = adaptation.variables(params, assigned)
    clip = variables["params"]["clip"]
    return HeadInputs(
        texts=lambda: jax.device_get(model.apply(variables, method="text_features")),
        logit_scale=lambda: jax.device_get(clip["logit_scale"]),
        logit_bias=lambda: jax.device_get(clip["logit_bias"]),
        source_logits=lambda x: model.apply(variables, x, method="source_logits"),
        assigned=jax.device_get(assigned),
    )
