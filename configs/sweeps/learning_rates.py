"""Learning rates of the parts whose papers give none for CLIP: the defaults are chosen from these.

python launch.py --config configs/sweeps/learning_rates.py            (ViT-B/32, CIFAR-10)
python launch.py --config configs/sweeps/learning_rates.py:mini       (the embedded ResNet and ViT)

The choice is by accuracy on val (`val_accuracy_best` in runs.csv); test decides nothing.
"""

from configs.sweeps import common
from vprompt_jax.config import grid

_ADAMW = (3e-4, 1e-3, 3e-3, 1e-2)
# By method: the part whose rate it is, and the rates.
_RATES = {
    "ap": ("ap", (0.1, 0.3, 1.0, 3.0)),
    "full": ("tune", (1e-4, *_ADAMW[:3])),
    "norm": ("tune", _ADAMW),
    "bitfit": ("tune", _ADAMW),
    "adapter": ("adapter", _ADAMW),
    "ssf": ("ssf", _ADAMW),
    "lora": ("lora", _ADAMW),
    "vpt_shallow": ("vpt", (3e-3, 1e-2, 3e-2)),
    "vpt_deep": ("vpt", (3e-3, 1e-2, 3e-2)),
}


def get_config(variant="paper"):
    c = common.base("learning_rates", variant)
    if variant == "paper":
        c.protocol = "val"
        c.optim.epochs = 10
        towers = {"ViT-B/32": common.VIT_METHODS}
    else:
        towers = {"mini-clip-rn": common.RESNET_METHODS, "mini-clip-vit": common.VIT_METHODS}
    for tower, methods in towers.items():
        for method, (part, rates) in _RATES.items():
            if method in methods:
                axes = {"model.checkpoint": (tower,), "method.name": (method,)}
                c.sweep += grid(axes | {f"{part}.learning_rate": rates})
    return c
