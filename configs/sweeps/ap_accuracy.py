"""Activation prompts, accuracy: AP and its baselines on VTAB-1k, FGVC and full data sets.

    python launch.py --config configs/sweeps/ap_accuracy.py            (ViT-B/32, 100 epochs: ours)
    python launch.py --config configs/sweeps/ap_accuracy.py:mini       (a laptop's)

The paper's abstract counts 29 data sets; which full ones complete VTAB-1k's 19 and FGVC's 5 it does
not say.
"""

from configs.sweeps import common, learning_rates
from vprompt_jax.config import grid


def get_config(variant="paper"):
    c = common.base("ap_accuracy", variant)
    if variant == "paper":
        c.protocol = "val"
        c.optim.epochs = 100
        methods = {"method.name": common.VIT_METHODS}
        datasets = tuple(dict.fromkeys(common.DATASETS + common.FGVC))  # Flowers102 is in both
        c.sweep = grid({"data.name": datasets} | methods)
        c.sweep += grid({"data.split": ("vtab",), "data.name": common.VTAB} | methods)
    else:
        for method in common.MINI_METHODS:
            keys = {"method.name": method} | common.own_keys(method, variant)
            keys |= learning_rates.chosen(method)
            paired = method in (*common.VIT_METHODS, "lor_vp")
            c.sweep += grid(common.fixed(keys), common.PAIRED_SEEDS if paired else common.SEEDS)
    return c
