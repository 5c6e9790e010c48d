"""Activation prompt on CIFAR-100 with CLIP RN50 (arXiv 2604.06440).

    python launch.py --config configs/ap_clip_rn50.py

The abstract gives no hyper-parameters: position, learning rate and length are ours; sweep the
position with configs/sweeps/ap_layer.py. This file has not been run as it is; a test trains what
it describes for five steps on a tower as deep and far narrower.
"""

from configs import ap_clip_vit_b32


def get_config():
    c = ap_clip_vit_b32.get_config()
    c.name = "ap_clip_rn50"
    c.model.checkpoint = "RN50"
    c.ap.positions = (14,)
    return c
