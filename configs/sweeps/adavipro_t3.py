"""AdaViPro, table 3: trained parameters of the methods.

python launch.py --config configs/sweeps/adavipro_t3.py            (the paper's setting)
python launch.py --config configs/sweeps/adavipro_t3.py:mini       (a laptop's)
"""

from configs.sweeps import common
from vprompt_jax.config import grid


def get_config(variant="paper"):
    c = common.base("adavipro_t3", variant)
    c.optim.epochs = 0  # parameters are counted, nothing is trained
    if variant == "paper":
        methods, widths = ("tp", "vp", "linear", "full"), (8, 64)
    else:
        methods, widths = ("tp", "vp", "linear"), (8, 16)
    adavipro = grid({"method.name": ("adavipro",), "mask.width": widths})
    c.sweep = grid({"method.name": methods}) + adavipro
    return c
