"""Activation prompts at several positions, with and without a gate: ours.

python launch.py --config configs/sweeps/ap_several.py             (ViT-B/32, CIFAR-10)
python launch.py --config configs/sweeps/ap_several.py:mini        (the embedded ViT, digits)
"""

from configs.sweeps import common, learning_rates
from vprompt_jax.config import grid


def get_config(variant="paper"):
    c = common.base("ap_several", variant)
    c.method.name = "ap"
    if variant == "paper":
        c.protocol = "val"
        c.optim.epochs = 100
        middle, depth, seeds = 6, 12, (0,)
    else:
        middle, depth, seeds = 3, 6, common.SEEDS
        c.update_from_flattened_dict(learning_rates.chosen("ap"))
    positions = ((middle,), tuple(range(0, depth, 2)), tuple(range(depth)))
    c.sweep = grid({"ap.positions": positions, "ap.gate": (None, 0.0)}, seeds)
    return c
