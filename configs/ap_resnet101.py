"""Activation prompt on CIFAR-100 with ResNet-101, supervised on ImageNet-1k (arXiv 2604.06440).

    python launch.py --config configs/ap_resnet101.py

The abstract gives no hyper-parameters: position, learning rate and length are ours; sweep the
position with configs/sweeps/ap_layer.py. This file has not been run as it is; a test trains what
it describes for five steps on a tower as deep and far narrower.
"""

from configs import ap_clip_vit_b32


def get_config():
    c = ap_clip_vit_b32.get_config()
    c.name = "ap_resnet101"
    c.model.checkpoint = "timm/resnet101.tv_in1k"
    c.ap.positions = (30,)
    c.head.kind = "linear"
    return c
