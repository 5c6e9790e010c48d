"""VP and AdaViPro for as long as the paper trains, in its setting, on the embedded ViT.

    python launch.py --config configs/sweeps/paper_length.py:CIFAR10

CIFAR10 is CIFAR-10 as a folder of photographs (train/CLASS, test/CLASS), or as the .npz that
`vprompt_jax.data.save` makes of it. 1,000 epochs of 1,020 images in batches of 128; prompts start
from N(0, 1), masks act from the first step, and the temperature decays by 0.98 an epoch. Ours are
the batches, the size, the regions and the generator's width, for 32 pixels, and the learning rates:
a tenth of the paper's.
"""

from configs import quickstart
from configs.sweeps import common
from vprompt_jax.config import default_config, grid


def get_config(cifar=""):
    if not cifar:
        raise FileNotFoundError("say where CIFAR-10 is: paper_length.py:FOLDER, or :FILE.npz")
    c = default_config()  # the masks and the schedule of the paper
    c.name = "paper_length"
    c.protocol = "paper"
    mini = quickstart.get_config()
    c.model.checkpoint = mini.model.checkpoint
    c.mask.region, c.mask.width = mini.mask.region, mini.mask.width
    c.update_from_flattened_dict(common.images_at(cifar))
    c.data.few_shot = 102
    c.prompt.learning_rate, c.mask.learning_rate = 4.0, 0.1
    c.optim.batch_size, c.optim.epochs = 128, 1000
    c.eval.every_epochs, c.log.every_steps = 1000, 100
    c.prompt.size = 4  # the paper's 30 at 224 pixels
    c.sweep = grid({"method.name": ("vp", "adavipro")}, common.PAIRED_SEEDS)
    return c
