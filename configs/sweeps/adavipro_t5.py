"""AdaViPro, table 5: decay of the temperature, on nine datasets.

python launch.py --config configs/sweeps/adavipro_t5.py            (the paper's setting)
python launch.py --config configs/sweeps/adavipro_t5.py:mini       (a laptop's)
"""

from configs.sweeps import common
from vprompt_jax.sweep import grid

DECAYS = (0.9, 0.94, 0.98, 0.99)


def get_config(variant="paper"):
    c = common.base("adavipro_t5", variant)
    c.method.name = "adavipro"
    if variant == "paper":
        c.sweep = grid({"data.name": common.DATASETS, "mask.temperature_decay": DECAYS})
    else:
        c.sweep = grid({"mask.temperature_decay": DECAYS}, common.SEEDS)
    return c
