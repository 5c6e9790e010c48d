"""Learning rates of the parts whose papers give none for CLIP: the defaults are chosen from these.

python launch.py --config configs/sweeps/learning_rates.py            (ViT-B/32, CIFAR-10)
python launch.py --config configs/sweeps/learning_rates.py:mini       (the embedded ResNet and ViT)

The choice is by accuracy on val (`val_accuracy_best` in runs.csv); test decides nothing.
"""

from configs.sweeps import common
from vprompt_jax.config import grid

_ADAMW = (3e-4, 1e-3, 3e-3, 1e-2)
_SMALL_ADAMW = (3e-3, 1e-2, 3e-2, 1e-1, 3e-1)  # small towers bear more
# By method: the part, or parts, whose rate it is, and the rates for ViT-B/32.
_RATES = {
    "ap": ("ap", (0.1, 0.3, 1.0, 3.0)),
    "linear": ("head", (1.0, 3.0, 10.0, 30.0)),
    "full": ("tune", (1e-5, 3e-5, 1e-4, 3e-4)),
    "norm": ("tune", _ADAMW),
    "bitfit": ("tune", _ADAMW),
    "adapter": ("adapter", _ADAMW),
    "ssf": ("ssf", _ADAMW),
    "lora": ("lora", _ADAMW),
    "vpt_shallow": ("vpt", (3e-3, 1e-2, 3e-2, 1e-1)),
    "vpt_deep": ("vpt", (3e-3, 1e-2, 3e-2, 1e-1)),
}
# The same for the embedded towers, and the prompts' there: their papers' rates are for 224 pixels.
_MINI_RATES = {
    "vp": ("prompt", (0.01, 0.03, 0.1, 0.25, 0.5, 1.0, 2.0)),
    "adavipro": ("mask", (0.1, 0.3, 1.0, 3.0)),
    "lor_vp": ("prompt", (0.005, 0.02, 0.1, 0.3, 1.0)),
    "ilm": ("prompt", (0.1, 0.25, 0.5, 1.0, 2.0)),
    "blm": ("prompt", (0.1, 0.25, 0.5, 1.0, 2.0)),
    "blm_plus": ("prompt", (0.1, 0.25, 0.5, 1.0, 2.0)),
    "ap": ("ap", (0.1, 0.3, 1.0, 3.0, 10.0)),
    "linear": ("head", (1.0, 3.0, 10.0, 30.0, 100.0)),
    "full": ("tune", (1e-4, *_ADAMW)),
    "norm": ("tune", _SMALL_ADAMW),
    "bitfit": ("tune", _SMALL_ADAMW),
    "adapter": ("adapter", (1e-3, 3e-3, 1e-2, 3e-2)),
    "ssf": ("ssf", _SMALL_ADAMW[:4]),
    "lora": ("lora", _SMALL_ADAMW[:4]),
    "vpt_shallow": ("vpt", (1e-1, 3e-1, 1.0, 3.0, 10.0)),
    "vpt_deep": ("vpt", (1e-2, 3e-2, 1e-1, 3e-1)),
    "gate_vpt": ("vpt", (1e-2, 3e-2, 1e-1, 3e-1, 1.0)),
    "e2vpt": ("vpt", (1e-2, 3e-2, 1e-1, 3e-1, 1.0)),
    "evp": ("prompt", (0.3, 1.0, 3.0, 10.0, 30.0)),
    "auto_vp": ("prompt", (0.03, 0.1, 0.3, 1.0, 3.0)),
    "coop": ("context", (0.002, 0.02, 0.1, 0.5, 2.0)),
    "cocoop": ("context", (0.002, 0.02, 0.1, 0.5, 2.0)),
    "maple": ("maple", (0.0035, 0.035, 0.1, 0.35, 1.0)),
    "promptsrc": ("context vpt", (0.0025, 0.025, 0.25, 1.0, 3.0, 10.0)),
    "clip_lora": ("lora text_lora", (2e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)),
    "clip_adapter": ("head", (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)),
    "tip_adapter_f": ("head", (1e-4, 1e-3, 1e-2, 1e-1, 3e-1)),
    "wise_ft": ("tune", (1e-4, *_ADAMW)),
    "adaptformer": ("adaptformer", (0.1, 0.3, 1.0, 3.0, 10.0)),
    "dora": ("dora", _SMALL_ADAMW[:4]),
}

# Those that were best on val, on the embedded ViT (docs/methods.md).
_CHOSEN = {
    "vp": 0.5,
    "adavipro": 1.0,
    "lor_vp": 0.1,
    "ilm": 0.25,
    "blm": 1.0,
    "blm_plus": 0.5,
    "ap": 0.3,
    "linear": 10.0,
    "full": 3e-4,
    "norm": 0.1,
    "bitfit": 0.1,
    "adapter": 3e-3,
    "ssf": 1e-2,
    "lora": 1e-2,
    "vpt_shallow": 3.0,
    "vpt_deep": 3e-2,
    "gate_vpt": 3e-2,
    "evp": 3.0,
    "e2vpt": 0.3,
    "auto_vp": 0.3,
    "coop": 0.02,
    "cocoop": 0.02,
    "maple": 0.35,
    "promptsrc": 1.0,
    "clip_lora": 1e-2,
    "clip_adapter": 3e-2,
    "tip_adapter_f": 0.1,
    "wise_ft": 3e-3,
    "adaptformer": 3.0,
    "dora": 3e-2,
}


def chosen(method: str) -> dict[str, float]:
    """The learning rate of a method on the embedded ViT, by its keys; empty for zero-shot."""
    if method not in _CHOSEN:
        return {}
    return _keys(method, _CHOSEN[method])


def _keys(method: str, rate: float) -> dict[str, float]:
    """A rate by its key in the config, or by the keys of several parts that share it."""
    parts, _ = _MINI_RATES[method]
    return {f"{part}.learning_rate": rate for part in parts.split()}


def get_config(variant="paper"):
    c = common.base("learning_rates", variant)
    if variant == "paper":
        c.protocol = "val"
        c.optim.epochs = 10
        towers, all_rates = {"ViT-B/32": common.VIT_METHODS}, _RATES
    else:
        towers = {"mini-clip-vit": common.MINI_METHODS, "mini-clip-rn": common.RESNET_METHODS}
        all_rates = _MINI_RATES
    for tower, methods in towers.items():
        for method, (_, rates) in all_rates.items():
            keys = {"model.checkpoint": tower, "method.name": method}
            keys |= common.own_keys(method, variant)
            for rate in rates if method in methods else ():
                c.sweep += grid(common.fixed(keys | _keys(method, rate)))
    return c
