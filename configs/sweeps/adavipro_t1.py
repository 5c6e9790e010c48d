"""AdaViPro, table 1: accuracy of the methods on nine datasets.

python launch.py --config configs/sweeps/adavipro_t1.py            (the paper's setting)
python launch.py --config configs/sweeps/adavipro_t1.py:mini       (a laptop's)
python launch.py --config configs/sweeps/adavipro_t1.py:FOLDER     (the same on photographs)
"""

from configs.sweeps import common
from vprompt_jax.config import grid


def get_config(variant="paper"):
    c = common.base("adavipro_t1", variant)
    if variant == "paper":
        methods = ("tp", "vp", "adavipro", "linear", "full")
        c.sweep = grid({"data.name": common.DATASETS, "method.name": methods})
    else:
        methods = ("tp", "vp", "adavipro", "linear")
        c.sweep = grid({"method.name": methods}, common.PAIRED_SEEDS)
    return c
