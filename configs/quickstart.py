"""AdaViPro on the embedded digits with the embedded mini CLIP: minutes on a laptop.

python launch.py --config configs/quickstart.py
python launch.py --config configs/quickstart.py --config.method.name=vp    (tp, linear)
"""

from vprompt_jax.config import default_config


def get_config():
    c = default_config()
    c.name = "quickstart"
    c.prompt.size = 4  # 30/224 of the side
    c.prompt.init = "zeros"
    c.prompt.learning_rate = 0.3  # ours, like the mask's: chosen on val (docs/mini.md)
    c.mask.region = 4
    c.mask.width = 16
    c.mask.learning_rate = 0.3
    c.optim.batch_size = 128
    c.optim.epochs = 4
    c.optim.warmup_steps = 25
    c.eval.every_epochs = 2
    return c
