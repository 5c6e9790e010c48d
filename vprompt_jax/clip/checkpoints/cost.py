"""What loading a checkpoint costs; every figure is taken in a process of its own."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vprompt_jax.clip.checkpoints.load import open_checkpoint
from vprompt_jax.process.errors import UserError

# Each program prints one JSON object. Peak memory is the process's, less what it held before.
_READ = """
import json, sys, time
from safetensors.numpy import load_file
start = time.perf_counter()
tensors = load_file(sys.argv[1])
print(json.dumps({"seconds": time.perf_counter() - start}))
"""
_LOAD = """
import json, sys, time
import jax, vprompt_jax as vp
path, options = sys.argv[1], json.loads(sys.argv[2])
vp.clip.load("mini-clip-rn")  # imports and first traces are not the checkpoint's
def peak():  # not getrusage's, which begins with the parent process's
    with open("/proc/self/status") as status:
        return next(int(x.split()[1]) * 1024 for x in status if x.startswith("VmHWM"))
before, start = peak(), time.perf_counter()
clip, variables = vp.clip.load(path, **options)
seconds = time.perf_counter() - start
size = sum(x.nbytes for x in jax.tree.leaves(variables))
print(json.dumps({"seconds": seconds, "peak": peak() - before, "size": size}))
"""
_FEATURES = """
import time
start = time.perf_counter()
import json, sys
import jax, numpy as np
import vprompt_jax as vp
clip, variables = vp.clip.load(sys.argv[1], **json.loads(sys.argv[2]))
side = clip.config.image_resolution
images = np.zeros((1, side, side, 3), np.float32)
encode = jax.jit(lambda v, x: clip.apply(v, x, method="encode_image"))
encode(variables, images).block_until_ready()
print(json.dumps({"seconds": time.perf_counter() - start}))
"""


def _run(program: str, *args: str, **environment: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-c", program, *args],
        capture_output=True,
        text=True,
        env=os.environ | environment,
    )
    if done.returncode:
        raise UserError(f"measuring failed: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(
    path_or_name: str | Path,
    activation: str | None = None,
    fields: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """Time and memory of loading a checkpoint, and time to its first image features.

    Args:
      path_or_name: as in `load`; downloaded first if need be.
      activation: as in `load`.
      fields: as in `load`.

    Returns:
      Seconds, bytes in MiB, and their ratio, by what they are. Memory is the growth of the
      process's peak during `load`, over the size of the variables it returned.

    Raises:
      UserError: as `load`, and on systems without /proc.
    """
    if not Path("/proc/self/status").exists():
        raise UserError("peak memory is read from /proc/self/status, which this system lacks")
    opened = open_checkpoint(path_or_name, activation=activation, fields=fields)
    options = json.dumps({"activation": activation, "fields": dict(fields or {})})
    path = str(opened.path)
    loaded = _run(_LOAD, path, options)
    figures = {
        "load, seconds": loaded["seconds"],
        "variables, MiB": loaded["size"] / 2**20,
        "peak memory of load, MiB": loaded["peak"] / 2**20,
        "peak memory over variables": loaded["peak"] / loaded["size"],
    }
    if path.endswith(".safetensors"):
        figures["safetensors.numpy reading the same file, seconds"] = _run(_READ, path)["seconds"]
    with tempfile.TemporaryDirectory() as cache:
        for state in ("cold", "warm"):
            figures[f"start to first image features, {state} cache, seconds"] = _run(
                _FEATURES, path, options, JAX_COMPILATION_CACHE_DIR=cache
            )["seconds"]
    return figures
