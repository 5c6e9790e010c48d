"""Activation prompts, efficiency: parameters, time and throughput of AP and its baselines.

python launch.py --config configs/sweeps/ap_efficiency.py            (ViT-B/32, 3 epochs)
python launch.py --config configs/sweeps/ap_efficiency.py:mini       (a laptop's)
"""

from configs.sweeps import common
from vprompt_jax.config import grid


def get_config(variant="paper"):
    c = common.base("ap_efficiency", variant)
    c.optim.epochs = 3
    c.sweep = grid({"method.name": common.VIT_METHODS})
    return c
