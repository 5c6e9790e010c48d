"""Activation prompt on CIFAR-100 with ResNet-101, supervised on ImageNet-1k (arXiv 2604.06440).

    python launch.py --config configs/ap_resnet101.py

The abstract gives no hyper-parameters: position, learning rate and length are ours; sweep the
position with configs/sweeps/ap_layer.py. This file has been run for a few steps on random weights
of reduced size only.
"""

from vprompt_jax.config import default_config


def get_config():
    c = default_config()
    c.name = "ap_resnet101"
    c.model.checkpoint = "timm/resnet101.tv_in1k"
    c.data.source = "tfds"
    c.data.name = "cifar100"
    c.method.name = "ap"
    c.ap.positions = (30,)
    c.head.kind = "linear"
    c.optim.epochs = 100
    c.optim.warmup_steps = 100
    return c
