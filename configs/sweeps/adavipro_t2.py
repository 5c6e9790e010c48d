"""AdaViPro, table 2: VP and AdaViPro over prompt sizes, on nine datasets.

python launch.py --config configs/sweeps/adavipro_t2.py            (the paper's setting)
python launch.py --config configs/sweeps/adavipro_t2.py:mini       (a laptop's)
"""

from configs.sweeps import common
from vprompt_jax.config import grid


def get_config(variant="paper"):
    c = common.base("adavipro_t2", variant)
    methods = {"method.name": ("vp", "adavipro")}
    if variant == "paper":
        axes = {"data.name": common.DATASETS, "prompt.size": (5, 60, 90, 112)}
        c.sweep = grid(axes | methods)
    else:
        c.prompt.init = "normal"  # as published, with what suits it here (docs/mini.md)
        c.prompt.learning_rate, c.mask.learning_rate = 1.0, 0.1
        c.update_from_flattened_dict(common.FROM_NOISE)
        axes = {"prompt.size": (1, 16)}  # the same shares of 32 pixels, of the outermost
        c.sweep = grid(axes | methods, common.PAIRED_SEEDS)
    return c
