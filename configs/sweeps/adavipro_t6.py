"""AdaViPro, table 6: side of the regions, on nine datasets.

python launch.py --config configs/sweeps/adavipro_t6.py            (the paper's setting)
python launch.py --config configs/sweeps/adavipro_t6.py:mini       (a laptop's)
"""

from configs.sweeps import common
from vprompt_jax.config import grid


def get_config(variant="paper"):
    c = common.base("adavipro_t6", variant)
    c.method.name = "adavipro"
    if variant == "paper":
        c.sweep = grid({"data.name": common.DATASETS, "mask.region": (8, 16, 32, 56)})
    else:
        c.prompt.size = 16  # the whole image: where to add it is a question everywhere
        c.sweep = grid({"mask.region": (4, 8, 16)}, common.SEEDS)
    return c
