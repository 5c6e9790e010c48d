"""Steps on several devices that nobody waits for."""

import subprocess
import sys

from tests.conftest import ROOT

STEPS = """
import jax, jax.numpy as jnp, numpy as np
from vprompt_jax.process import parallel

def step(x, batch):
    y = batch["y"]
    for _ in range(4):
        y = jnp.tanh(y @ x)
    total = jax.lax.psum(y.T @ y, parallel.AXIS)
    return x + 1e-6 * total, {"sum": total.sum()}

run = parallel.on_all_devices(step, arguments=2, donate=(0,))
x = jax.device_put(np.full((256, 256), 0.01, np.float32), parallel.replicated())
y, total = np.ones((jax.device_count(), 32, 256), np.float32), None
for _ in range(300):
    x, sums = run(x, parallel.to_devices({"y": y}))
    total = sums if total is None else parallel.added(total, sums)
print(jax.device_count(), float(total["sum"]) > 0)
"""


def test_hundreds_of_steps_do_not_wait_for_each_other_forever():
    """More than 32 programs under way on several devices of a CPU never end."""
    command = [sys.executable, "-c", STEPS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.stdout.split() == ["4", "True"], done.stderr
