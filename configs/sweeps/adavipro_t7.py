"""AdaViPro, table 7: width of the mask generator, on nine datasets.

python launch.py --config configs/sweeps/adavipro_t7.py            (the paper's setting)
python launch.py --config configs/sweeps/adavipro_t7.py:mini       (a laptop's)
"""

from configs.sweeps import common
from vprompt_jax.config import grid


def get_config(variant="paper"):
    c = common.base("adavipro_t7", variant)
    c.method.name = "adavipro"
    if variant == "paper":
        c.sweep = grid({"data.name": common.DATASETS, "mask.width": (8, 16, 32, 64)})
    else:
        c.prompt.size = 16  # the whole image: where to add it is a question everywhere
        c.sweep = grid({"mask.width": (4, 16, 64)}, common.SEEDS)
    return c
