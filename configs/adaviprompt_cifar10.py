"""AdaViPro on CIFAR-10 with CLIP ViT-B/32, as published (arXiv 2403.13282, section 4).

    python launch.py --config configs/adaviprompt_cifar10.py

CLIP's weights are downloaded at the first run, and so is CIFAR-10, by TFDS.

On local photographs (train/CLASS/*.jpg, test/CLASS/*.jpg) instead of TFDS:

    python launch.py --config configs/adaviprompt_cifar10.py --config.model.checkpoint=FILE \
        --config.data.source=folder --config.data.dir=DIR

The paper prints 95.4 % test accuracy; this file has not been run to its end yet.
"""

from vprompt_jax.config import default_config


def get_config():
    c = default_config()
    c.name = "adaviprompt_cifar10"
    c.protocol = "paper"
    c.model.checkpoint = "ViT-B/32"  # OpenAI's, by name
    c.data.source = "tfds"
    c.data.name = "cifar10"
    c.method.name = "adavipro"
    c.prompt.size = 30
    c.prompt.learning_rate = 40.0
    c.mask.region = 32
    c.mask.width = 64
    c.mask.temperature = 5.0
    c.mask.temperature_decay = 0.98
    c.mask.learning_rate = 1.0
    c.optim.batch_size = 256
    c.optim.epochs = 1000
    c.optim.momentum = 0.9
    c.optim.warmup_steps = 1000
    return c
