"""VPT, number of tokens: its authors choose it on val, per data set.

    python launch.py --config configs/sweeps/vpt_tokens.py             (ViT-B/32, nine data sets)
    python launch.py --config configs/sweeps/vpt_tokens.py:mini        (the embedded ViT, digits)

The choice is by accuracy on val (`val_accuracy_best` in runs.csv); test decides nothing.
"""

from configs.sweeps import common, learning_rates
from vprompt_jax.config import grid

_METHODS = ("vpt_shallow", "vpt_deep")


def get_config(variant="paper"):
    c = common.base("vpt_tokens", variant)
    if variant == "paper":  # VPT, appendix
        c.protocol = "val"
        c.optim.epochs = 100
        counts = {"vpt.tokens": (1, 5, 10, 50, 100, 200)}
        c.sweep = grid({"data.name": common.DATASETS, "method.name": _METHODS} | counts)
    else:
        for method in _METHODS:
            keys = {"method.name": method} | learning_rates.chosen(method)
            c.sweep += grid(common.fixed(keys) | {"vpt.tokens": (1, 5, 10, 20, 50)})
    return c
