"""Base-to-new generalisation: trained on half of the classes, measured on both halves.

python launch.py --config configs/sweeps/base_to_new.py            (ViT-B/16, eleven data sets)
python launch.py --config configs/sweeps/base_to_new.py:mini       (the embedded ViT, digits)

The protocol of CoCoOp (arXiv 2203.05557, section 4.1): 16 shots, three seeds, each with images of
its own. Epochs and batch sizes are those of the methods' code; without val, as there, the last step
counts.
"""

from configs.sweeps import common, learning_rates
from vprompt_jax.config import grid

_EPOCHS = {  # and images per batch
    "coop": (200, 32),
    "cocoop": (10, 1),
    "maple": (5, 4),
    "promptsrc": (20, 4),
}
MINI_METHODS = ("tp", *_EPOCHS, "vp", "ap", "lora", "clip_lora", "clip_adapter")


def get_config(variant="paper"):
    c = common.base("base_to_new", variant)
    c.data.classes = "base"
    if variant == "paper":
        c.model.checkpoint, c.data.few_shot = "ViT-B/16", 16
        c.data.augment, c.optim.warmup_steps = "flip_crop", 0
        datasets = {"data.name": common.COOP}
        c.sweep = grid(common.fixed({"method.name": "tp"}) | datasets, common.COOP_SEEDS[:1])
        for method, (epochs, batch) in _EPOCHS.items():
            keys = {"method.name": method, "optim.epochs": epochs, "optim.batch_size": batch}
            axes = common.fixed(keys) | datasets
            c.sweep += grid(axes, common.COOP_SEEDS, common.SHOT_SEED)
    else:
        for method in MINI_METHODS:
            keys = {"method.name": method} | learning_rates.chosen(method)
            c.sweep += grid(common.fixed(keys), common.SEEDS)
    return c
