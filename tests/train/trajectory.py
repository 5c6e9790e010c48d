"""Trains and evaluates a little, and writes what it drew, learned and counted.

python -m tests.train.trajectory CHECKPOINT OUT.npz EXAMPLES

with any number of virtual devices (XLA_FLAGS) and processes (VPROMPT_COORDINATOR and so on).
"""

import sys

import jax
import numpy as np
from flax import traverse_util
from jax.experimental import multihost_utils

from vprompt_jax import config as config_lib
from vprompt_jax.adaptation.model import variables_of
from vprompt_jax.data import pipeline
from vprompt_jax.process import cluster
from vprompt_jax.train import step as step_lib
from vprompt_jax.train.assemble import assemble
from vprompt_jax.train.evaluate import evaluate

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


def gathered(x: jax.Array) -> np.ndarray:
    """The rows of all devices of all processes."""
    x = multihost_utils.process_allgather(x, tiled=True)
    return np.asarray(x).reshape(-1, *x.shape[2:])


def main(checkpoint: str, out: str, examples: str) -> None:
    cluster.join()
    with jax.default_matmul_precision("highest"):
        run = assemble(small_config(checkpoint))
        found = trained(run, int(examples)) | evaluated(run)
    if cluster.is_first():
        np.savez(out, devices=jax.device_count(), processes=jax.process_count(), **found)


def trained(run, examples: int) -> dict[str, np.ndarray]:
    """One epoch over the first examples: indices, noise and marks by step; parameters by path."""
    state = run.initial_state()
    train_step = step_lib.make_train_step(run.model, run.optimizer(), run.temperature)
    split = run.dataset.train.take(np.arange(examples))
    batches = pipeline.train_batches(split, batch_size=30, epochs=1, seed=0, start=0, workers=1)
    seen, noise, marks = [], [], []

    def draw(params, frozen, root, batch, step):
        at = step_lib.noise_keys(root, step, batch["index"])
        _, out = run.model.apply(
            variables_of(params, frozen), batch["image"],
            place_keys=at[:1], noise_keys=at, temperature=1.0,
        )  # fmt: skip
        gumbel = jax.vmap(lambda k: jax.random.gumbel(k, (4, 4, 2)))(at)
        return gumbel, out["marks"]

    drawn = jax.pmap(draw, in_axes=(None, None, None, 0, None))
    initial = jax.device_get(state.params)
    for number, batch in enumerate(batches):
        placed = pipeline.to_devices(batch)
        index = gathered(placed["index"])
        seen.append(index[index >= 0])
        if number < 8:
            g, m = drawn(initial, run.frozen, run.root, placed, number)
            noise.append(gathered(g)[index >= 0])
            marks.append(gathered(m)[index >= 0])
        state, _ = train_step(state, run.frozen, run.root, placed)
    flat = traverse_util.flatten_dict(jax.device_get(state.params), sep=".")
    return flat | {
        "seen": np.concatenate(seen),
        "noise": np.concatenate(noise),
        "marks": np.concatenate(marks),
    }


def evaluated(run) -> dict[str, np.ndarray]:
    """For splits of several sizes: the indices met, their count and the accuracy."""
    eval_step = step_lib.make_eval_step(run.model)
    params = run.initial_state().params
    found = {}
    for size in EVALUATED:
        split = run.dataset.val.take(np.arange(size))
        indices, count = [], 0.0
        for batch in pipeline.eval_batches(split, batch_size=12, workers=1):
            placed = pipeline.to_devices(batch)
            indices.append(gathered(placed["index"]))
            count += float(eval_step(params, run.frozen, run.root, placed)["count"])
        index = np.concatenate(indices)
        found[f"evaluated {size}"] = np.sort(index[index >= 0])
        found[f"count {size}"] = count
        found[f"accuracy {size}"] = evaluate(eval_step, params, run, split)["accuracy"]
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
