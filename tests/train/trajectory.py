"""Trains and evaluates a little, and writes what it drew, learned and counted.

python -m tests.train.trajectory CHECKPOINT OUT.npz EXAMPLES [IMPLEMENTATION]

with any number of virtual devices (XLA_FLAGS) and processes (VPROMPT_COORDINATOR and so on), and
with steps on all devices by a function of process/parallel.py (pmapped).
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax.experimental import multihost_utils

from vprompt_jax import config as config_lib
from vprompt_jax.adaptation import variables_of
from vprompt_jax.data import pipeline
from vprompt_jax.parts import Context
from vprompt_jax.process import cluster, parallel
from vprompt_jax.train import step as step_lib
from vprompt_jax.train.evaluate import evaluate
from vprompt_jax.train.training import Training, assemble
from vprompt_jax.train.validation import batches_of

EVALUATED = (1, 5, 30)  # sizes of splits


def small_config(checkpoint: str, method: str = "adavipro", learning_rate: float = 40.0):
    c = config_lib.default_config()
    c.model.checkpoint = checkpoint
    c.method.name = method
    c.prompt.size = 16
    c.prompt.learning_rate = learning_rate
    c.mask.region = 8
    c.mask.width = 8
    c.optim.batch_size = 30  # no multiple of 4: padding differs between device counts
    c.optim.epochs = 1
    c.optim.warmup_steps = 4
    c.eval.batch_size = 12
    return config_lib.resolve(c)


def train_step_of(run: Training):
    """The train step of a run, compiled anew."""
    adaptation = run.adaptation
    return step_lib.make_train_step(
        adaptation.model, run.optimizer(), run.values, weights=adaptation.weights
    )


def gathered(x: jax.Array) -> np.ndarray:
    """The rows of all devices of all processes."""
    x = multihost_utils.process_allgather(x, tiled=True)
    return np.asarray(x).reshape(-1, *x.shape[2:])


def main(checkpoint: str, out: str, examples: str, implementation: str = "pmapped") -> None:
    cluster.join()
    parallel._IMPLEMENTATION = getattr(parallel, implementation)
    with jax.default_matmul_precision("highest"):
        run = assemble(small_config(checkpoint))
        found = trained(run, int(examples)) | evaluated(run)
    if cluster.is_first():
        shape = {"devices": jax.device_count(), "processes": jax.process_count()}
        implementation = parallel._IMPLEMENTATION.__name__
        np.savez(out, **shape, implementation=implementation, **found)


def trained(run: Training, examples: int) -> dict[str, np.ndarray]:
    """One epoch over the first examples: indices, noise and marks by step; parameters by path."""
    state, train_step, adaptation = run.initial_state(), train_step_of(run), run.adaptation
    split = run.dataset.train.take(np.arange(examples))
    batches = pipeline.train_batches(split, batch_size=30, epochs=1, seed=0, start=0, workers=1)
    seen, noise, marks = [], [], []

    def draw(params, frozen, root, step, batch):
        context = Context(root, batch["index"], step, {"temperature": jnp.float32(1.0)})
        variables = variables_of(params, {}, frozen, adaptation.weights)
        pixels = adaptation.model.apply(variables, batch["image"], method="pixels")
        canvas = adaptation.model.apply(variables, pixels, context, method="prompted")
        at = context.example_keys("noise")
        gumbel = jax.vmap(lambda k: jax.random.gumbel(k, (4, 4, 2)))(at)
        return jax.lax.all_gather((gumbel, canvas.shown["marks"]), parallel.AXIS, tiled=True)

    drawn = parallel.on_all_devices(draw, arguments=5)
    initial = jax.device_get(state.params)
    for number, batch in enumerate(batches):
        placed = parallel.to_devices(batch)
        index = gathered(placed["index"])
        seen.append(index[index >= 0])
        if number < 8:
            at = np.int32(number)
            g, m = jax.device_get(drawn(initial, adaptation.frozen, run.root, at, placed))
            noise.append(g[index >= 0])
            marks.append(m[index >= 0])
        state, _ = train_step(state, adaptation.frozen, run.root, placed)
    flat = traverse_util.flatten_dict(jax.device_get(state.params), sep=".")
    return flat | {
        "seen": np.concatenate(seen),
        "noise": np.concatenate(noise),
        "marks": np.concatenate(marks),
    }


def evaluated(run: Training) -> dict[str, np.ndarray]:
    """For splits of several sizes: the indices met, their count and the accuracy."""
    adaptation, state = run.adaptation, run.initial_state()
    eval_step = step_lib.make_eval_step(adaptation.model, adaptation.weights)
    eval_step = eval_step(state.params, state.assigned, adaptation.frozen, run.root)
    found = {}
    for size in EVALUATED:
        split = run.dataset.val.take(np.arange(size))
        indices, count = [], 0.0
        for batch in pipeline.eval_batches(split, batch_size=12, workers=1):
            placed = parallel.to_devices(batch)
            indices.append(gathered(placed["index"]))
            count += float(eval_step(placed)[0]["count"])
        index = np.concatenate(indices)
        found[f"evaluated {size}"] = np.sort(index[index >= 0])
        found[f"count {size}"] = count
        found[f"accuracy {size}"] = evaluate(eval_step, batches_of(run, split)).metrics["accuracy"]
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
