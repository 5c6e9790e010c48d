"""Cross-dataset transfer: trained on ImageNet, measured on ten other data sets without training.

python launch.py --config configs/sweeps/cross_dataset.py          (ViT-B/16)
python launch.py --config configs/sweeps/cross_dataset.py:mini     (the embedded ViT)

The protocol of CoCoOp (arXiv 2203.05557, section 4.2): 16 shots, three seeds, each with images of
its own. The mini variant trains on the digits and is measured on the letters.
"""

from configs.sweeps import common, learning_rates

_MINI_METHODS = ("coop", "cocoop", "maple", "promptsrc", "vp", "ap", "clip_lora")


def get_config(variant="paper"):
    c = common.from_imagenet("cross_dataset", variant, common.COOP[1:], ("letters",))
    if variant != "paper":
        c.sweep = common.named("tp", {}, common.COOP_SEEDS[:1])
        for method in _MINI_METHODS:
            c.sweep += common.named(method, learning_rates.chosen(method), common.COOP_SEEDS[:2])
    return c
