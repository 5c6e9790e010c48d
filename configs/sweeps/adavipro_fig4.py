"""AdaViPro, figure 4: prompted images of VP and AdaViPro side by side.

python launch.py --config configs/sweeps/adavipro_fig4.py            (the paper's setting)
python launch.py --config configs/sweeps/adavipro_fig4.py:mini       (a laptop's)
"""

from configs.sweeps import common
from vprompt_jax.config import grid


def get_config(variant="paper"):
    c = common.base("adavipro_fig4", variant)
    if variant == "paper":
        c.sweep = grid({"method.name": ("vp", "adavipro")})
    else:
        c.prompt.size = 16
        c.sweep = grid({"method.name": ("vp", "adavipro")})
    return c
