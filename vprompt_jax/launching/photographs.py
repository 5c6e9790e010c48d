"""A config for a folder of photographs: photographs.py:FOLDER

It looks at how many photographs there are, and says what it chooses and why.
"""

import math
import re
from pathlib import Path

from ml_collections import ConfigDict

from vprompt_jax.config import default_config
from vprompt_jax.data import folder
from vprompt_jax.process import cluster
from vprompt_jax.process.printable import printable

# Ours, like all numbers here. On CIFAR-10 a linear layer alone is better with 256 photographs per
# class, and an activation prompt beside it with 1,024 (configs/sweeps/folder_size.py).
_FEW = 512  # photographs of the rarest class, below which a linear layer alone is trained
_UNEVEN = 3  # times the rarest class, above which classes are weighted
BATCH = 64
WARMUP = 0.1  # share of the run
_STEPS = 800  # at least; and at least as many epochs as
_EPOCHS = 5


def epochs(total: int) -> int:
    """Passes over a number of training photographs, for a method that is trained by steps."""
    return max(_EPOCHS, math.ceil(_STEPS * BATCH / total))


def get_config(path: str) -> ConfigDict:
    """The config, on the embedded CLIP.

    Args:
      path: of a folder, as `config.data.source=folder` takes it.

    Raises:
      UserError: if it is no such folder.
    """
    counts = folder.sizes(Path(path))
    rarest = min(counts, key=counts.__getitem__)
    total, least, most = sum(counts.values()), counts[rarest], max(counts.values())
    cluster.say(
        f"{total:,} photographs of {len(counts)} classes to learn from and choose by; "
        f"{printable(rarest)} has the fewest, {least:,}"
    )
    c = default_config()
    c.name = re.sub(r"[^\w.-]+", "-", Path(path).resolve().name) or "photographs"
    c.data.source, c.data.dir = "folder", path
    c.head.kind = "linear"
    if least < _FEW:
        c.method.name = "linear"
        c.head.solver = "lbfgs"
        c.optim.epochs = 1
        cluster.say(
            "method: a linear layer on the CLIP's features, solved exactly, since a class has "
            f"fewer than {_FEW} photographs"
        )
        return c
    c.method.name = "ap"
    c.optim.batch_size = BATCH
    c.optim.epochs = epochs(total)
    c.optim.warmup_fraction = WARMUP
    c.eval.every_epochs = max(1, c.optim.epochs // 10)
    cluster.say(
        "method: an activation prompt and a linear layer, which have enough photographs to learn "
        f"from; {c.optim.epochs} epochs"
    )
    if most > _UNEVEN * least:
        c.optim.class_weights = "balanced"
        cluster.say(
            f"class weights: balanced, since the largest class has {most / least:.0f} times as many"
        )
    return c
