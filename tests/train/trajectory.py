"""Trains a few steps and writes what it drew and learned; run with 1 or 4 virtual devices.

python -m tests.train.trajectory CHECKPOINT OUT.npz
"""

import sys

import jax
import numpy as np
from flax import traverse_util

from vprompt_jax import config as config_lib
from vprompt_jax.data import pipeline
from vprompt_jax.model import variables_of
from vprompt_jax.train import step as step_lib
from vprompt_jax.train.assemble import assemble

STEPS = 8


def small_config(checkpoint: str):
    c = config_lib.default_config()
    c.model.checkpoint = checkpoint
    c.prompt.size = 16
    c.prompt.learning_rate = 40.0
    c.mask.region = 8
    c.mask.width = 8
    c.optim.batch_size = 30  # not a multiple of 4: padding differs between device counts
    c.optim.epochs = 1
    c.optim.warmup_steps = 4
    return config_lib.resolve(c)


def main(checkpoint: str, out: str) -> None:
    with jax.default_matmul_precision("highest"):
        run = assemble(small_config(checkpoint))
        state = run.initial_state()
        train_step = step_lib.make_train_step(run.model, run.optimizer(), run.temperature)
        batches = pipeline.train_batches(
            run.dataset.train, batch_size=30, epochs=1, seed=0, start=0, workers=1
        )
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
        for number, batch in zip(range(STEPS), batches, strict=False):
            real = batch["weight"].ravel() > 0
            seen.append(batch["index"].ravel()[real])
            placed = pipeline.to_devices(batch)
            g, m = drawn(initial, run.frozen, run.root, placed, number)
            noise.append(np.asarray(g).reshape(-1, 4, 4, 2)[real])
            marks.append(np.asarray(m).reshape(-1, 4, 4)[real])
            state, _ = train_step(state, run.frozen, run.root, placed)
        flat = traverse_util.flatten_dict(jax.device_get(state.params), sep=".")
    np.savez(out, seen=seen, noise=noise, marks=marks, devices=jax.device_count(), **flat)


if __name__ == "__main__":
    main(*sys.argv[1:])
