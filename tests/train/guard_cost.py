"""What undoing bad steps costs: pairs of steps with and without the guard, in random order.

python -m tests.train.guard_cost CHECKPOINT [PAIRS [BATCH]]

CHECKPOINT is a file, or the name of an embedded model (mini-clip-rn).
"""

import random
import statistics
import sys
import time

import jax
import jax.numpy as jnp

from tests.train.trajectory import small_config, train_step_of
from vprompt_jax.data import pipeline
from vprompt_jax.process import parallel
from vprompt_jax.train import guard
from vprompt_jax.train.training import assemble


def main(checkpoint: str, pairs: str = "100", batch_size: str = "64") -> None:
    run = assemble(small_config(checkpoint))
    frozen = run.adaptation.frozen
    batch = parallel.to_devices(
        next(
            pipeline.train_batches(
                run.dataset.train, batch_size=int(batch_size), epochs=1, seed=0, start=0, workers=1
            )
        )
    )
    keep_finite = guard.keep_finite
    steps = {}
    for name in ("with", "without"):
        if name == "without":
            guard.keep_finite = lambda before, after, sums: (
                after,
                {**sums, "skipped": jnp.float32(0)},
            )
        steps[name] = train_step_of(run)
        steps[name](run.initial_state(), frozen, run.root, batch)  # compiles
        guard.keep_finite = keep_finite
    states = {name: run.initial_state() for name in steps}

    def seconds(name: str) -> tuple[float, float]:
        """Of the wall clock and of the processor, which other programs disturb less."""
        begun = time.perf_counter(), time.process_time()
        states[name], _ = steps[name](states[name], frozen, run.root, batch)
        jax.block_until_ready(states[name])
        return time.perf_counter() - begun[0], time.process_time() - begun[1]

    order, times = random.Random(0), {"with": [], "without": []}
    for _ in range(int(pairs)):
        for name in order.sample(["with", "without"], 2):
            times[name].append(seconds(name))
    for clock, label in enumerate(("wall", "processor")):
        a, b = ([t[clock] for t in times[name]] for name in ("with", "without"))
        ratios = sorted(x / y for x, y in zip(a, b, strict=True))
        low, high = (ratios[round(q * (len(ratios) - 1))] for q in (0.25, 0.75))
        print(
            f"{label}: median step {1e3 * statistics.median(a):.2f} ms with and "
            f"{1e3 * statistics.median(b):.2f} ms without the guard; paired ratios: median "
            f"{statistics.median(ratios):.4f}, quartiles {low:.4f} and {high:.4f}"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
