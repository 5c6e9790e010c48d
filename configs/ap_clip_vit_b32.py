"""Activation prompt on CIFAR-100 with CLIP ViT-B/32 (arXiv 2604.06440).

    python launch.py --config configs/ap_clip_vit_b32.py

The abstract gives no hyper-parameters: position, learning rate and length are ours; sweep the
position with configs/sweeps/ap_layer.py. This file has not been run as it is; a test trains what
it describes for five steps on a tower as deep and far narrower.
"""

from vprompt_jax.config import default_config


def get_config():
    c = default_config()
    c.name = "ap_clip_vit_b32"
    c.model.checkpoint = "ViT-B/32"
    c.data.source = "tfds"
    c.data.name = "cifar100"
    c.method.name = "ap"
    c.ap.positions = (0,)
    c.head.kind = "text"
    c.optim.epochs = 100
    c.optim.warmup_steps = 100
    return c
