"""Activation prompts, preference of layers: accuracy over the position of one prompt.

python launch.py --config configs/sweeps/ap_layer.py            (ViT-B/32 and RN50, CIFAR-10)
python launch.py --config configs/sweeps/ap_layer.py:mini       (the embedded ResNet and ViT)

The report puts mean attention distance and CKA with the last features beside the accuracies.
"""

from configs.sweeps import common, learning_rates
from vprompt_jax.config import grid


def _positions(depth: int) -> dict:
    """Every block's input, and the feature vector."""
    return {"ap.positions": tuple((i,) for i in range(depth + 1))}


def get_config(variant="paper"):
    c = common.base("ap_layer", variant)
    c.method.name = "ap"
    if variant == "paper":
        c.protocol = "val"
        c.optim.epochs = 100
        towers, seeds = {"ViT-B/32": 12, "RN50": 16}, (0,)
    else:
        towers, seeds = {"mini-clip-vit": 6, "mini-clip-rn": 3}, common.SEEDS
        c.update_from_flattened_dict(learning_rates.chosen("ap"))
    for tower, depth in towers.items():
        kinds = {"model.checkpoint": (tower,), "ap.shape": ("full", "channel")}
        c.sweep += grid(kinds | _positions(depth), seeds)
    return c
