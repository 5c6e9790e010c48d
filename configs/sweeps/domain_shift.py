"""Domain shift: trained on ImageNet, measured on its V2, Sketch, A and R without training.

python launch.py --config configs/sweeps/domain_shift.py           (ViT-B/16)
python launch.py --config configs/sweeps/domain_shift.py:mini      (the embedded ViT)

The protocol of CoCoOp (arXiv 2203.05557, section 4.3); its runs are those of cross_dataset.py. A
and R have 200 of ImageNet's classes, which are then all possible answers. The mini variant trains
on the digits and is measured on them without colour, with little contrast, and as outlines.
"""

from configs.sweeps import common, learning_rates

_MINI_SHIFTS = ("digits_grey", "digits_faint", "digits_outline")
_MINI_METHODS = ("coop", "vp", "ap", "linear", "full", "wise_ft")


def get_config(variant="paper"):
    c = common.from_imagenet("domain_shift", variant, common.IMAGENET_SHIFTS, _MINI_SHIFTS)
    if variant != "paper":
        c.sweep = common.named("tp", {}, common.COOP_SEEDS[:1])
        for method in _MINI_METHODS:
            c.sweep += common.named(method, learning_rates.chosen(method), common.COOP_SEEDS[:2])
    return c
