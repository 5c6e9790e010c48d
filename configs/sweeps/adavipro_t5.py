"""AdaViPro, table 5: decay of the temperature, on nine datasets.

python launch.py --config configs/sweeps/adavipro_t5.py            (the paper's setting)
python launch.py --config configs/sweeps/adavipro_t5.py:mini       (a laptop's)
"""

from configs.sweeps import common
from vprompt_jax.config import grid


def get_config(variant="paper"):
    c = common.base("adavipro_t5", variant)
    c.method.name = "adavipro"
    if variant == "paper":
        decays = (0.9, 0.94, 0.98, 0.99)
        c.sweep = grid({"data.name": common.DATASETS, "mask.temperature_decay": decays})
    else:
        c.prompt.size = 16  # the whole image: where to add it is a question everywhere
        c.optim.epochs, c.data.few_shot = 6, 800  # the decay is per epoch
        decays = (0.3, 0.7, 0.98)  # faster, for so few
        c.sweep = grid({"mask.temperature_decay": decays}, common.SEEDS)
    return c
