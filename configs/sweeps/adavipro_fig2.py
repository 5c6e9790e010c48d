"""AdaViPro, figure 2: accuracy over prompt size, on nine datasets.

python launch.py --config configs/sweeps/adavipro_fig2.py            (the paper's setting)
python launch.py --config configs/sweeps/adavipro_fig2.py:mini       (a laptop's)
"""

from configs.sweeps import common
from vprompt_jax.config import grid


def get_config(variant="paper"):
    c = common.base("adavipro_fig2", variant)
    methods = {"method.name": ("vp", "adavipro")}
    if variant == "paper":
        sizes = {"data.name": common.DATASETS, "prompt.size": (5, 30, 60, 90, 112)}
        c.sweep = grid(sizes | methods)
    else:
        sizes = {"prompt.size": (1, 4, 8, 12, 16)}
        c.sweep = grid(sizes | methods, common.PAIRED_SEEDS)
    return c
