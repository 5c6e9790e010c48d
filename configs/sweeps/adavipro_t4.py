"""AdaViPro, table 4: with and without edges, on nine datasets.

python launch.py --config configs/sweeps/adavipro_t4.py            (the paper's setting)
python launch.py --config configs/sweeps/adavipro_t4.py:mini       (a laptop's)
"""

from configs.sweeps import common
from vprompt_jax.config import grid


def get_config(variant="paper"):
    c = common.base("adavipro_t4", variant)
    c.method.name = "adavipro"
    if variant == "paper":
        edges = ("laplacian", "none")
        c.sweep = grid({"data.name": common.DATASETS, "mask.edge": edges})
    else:
        c.prompt.size = 16  # the whole image: where to add it is a question everywhere
        c.sweep = grid({"mask.edge": ("laplacian", "sobel", "none")}, common.SEEDS)
    return c
