"""Activation prompts, preference of layers: accuracy over the position of one prompt.

python launch.py --config configs/sweeps/ap_layer.py            (ViT-B/32 and RN50, CIFAR-10)
python launch.py --config configs/sweeps/ap_layer.py:mini       (the embedded ResNet)
"""

from configs.sweeps import common
from vprompt_jax.sweep import grid


def _positions(depth: int) -> dict:
    """Every block's input, and the feature vector."""
    return {"ap.positions": tuple((i,) for i in range(depth + 1))}


def get_config(variant="paper"):
    c = common.base("ap_layer", variant)
    c.method.name = "ap"
    if variant == "paper":
        c.protocol = "val"
        c.optim.epochs = 100
        c.sweep = grid({"model.checkpoint": ("ViT-B-32.pt",)} | _positions(12))
        c.sweep += grid({"model.checkpoint": ("RN50.pt",)} | _positions(16))
    else:
        c.sweep = grid(_positions(3), common.SEEDS)
    return c
