"""AdaViPro on the embedded digits with the embedded mini CLIP: minutes on a laptop.

python launch.py --config configs/quickstart.py
python launch.py --config configs/quickstart.py --config.method.name=vp    (tp, linear)
"""

from vprompt_jax.config import default_config


def get_config():
    c = default_config()
    c.name = "quickstart"
    c.model.checkpoint = "mini-clip-vit"
    c.prompt.size = 16  # the whole image
    c.prompt.init = "zeros"
    c.prompt.learning_rate = 0.5  # ours, as is all of the mask's: chosen on val (docs/mini.md)
    c.mask.region = 4
    c.mask.width = 16
    c.mask.hold, c.mask.sampled = 0.6, 0.8
    c.mask.learning_rate = 1.0
    c.optim.batch_size = 64
    c.optim.epochs = 3
    c.optim.average = 0.99  # steadies what the noise of masks moves
    c.optim.warmup_steps = 50
    c.eval.every_epochs = 1
    return c
