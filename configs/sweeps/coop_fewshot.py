"""Few-shot learning: accuracy over 1, 2, 4, 8 and 16 training images per class (CoOp's protocol).

    python launch.py --config configs/sweeps/coop_fewshot.py           (RN50, eleven data sets)
    python launch.py --config configs/sweeps/coop_fewshot.py:mini      (the embedded ViT)

Eleven data sets and three seeds, each with images of its own (arXiv 2109.01134; epochs: COOP.md of
its code, and the config of Tip-Adapter's). Val, of at most four images per class, chooses the
linear probe's strength and Tip-Adapter's alpha and beta, and nothing else. Ours: CLIP-Adapter's
epochs are CoOp's, methods without learned texts have CLIP's ensembles of them, and Tip-Adapter-F
sees its images as they are. The mini variant has digits and letters, 1, 4 and 16 shots,
and two seeds.
"""

from configs.sweeps import common, learning_rates
from vprompt_jax.config import grid

_EPOCHS = {1: 50, 2: 100, 4: 100, 8: 200, 16: 200}  # CoOp's; 50 on ImageNet
_SOLVED = {"head.solver": "lbfgs", "optim.epochs": 1}


def _keys(method: str, dataset: str, shots: int, variant: str) -> dict:
    """What a method does with a number of shots."""
    if method == "linear":
        return _SOLVED
    if method == "tip_adapter":
        return {"data.templates": "ensemble", "head.per_class": shots}
    epochs = 50 if dataset == "imagenet2012" else _EPOCHS[shots]
    keys = {"optim.epochs": epochs, "optim.batch_size": 32, "data.augment": "flip_crop"}
    if method != "coop":
        keys |= {"data.templates": "ensemble"}
    if method == "tip_adapter_f":
        keys |= {"head.per_class": shots, "data.augment": "none"}
        keys |= {"optim.epochs": 20, "optim.batch_size": 256}
    if variant != "paper":
        keys |= {"optim.epochs": 20, "optim.batch_size": 32, "data.augment": "none"}
        keys |= learning_rates.chosen(method)
    return keys


def get_config(variant="paper"):
    c = common.base("coop_fewshot", variant)
    c.protocol, c.optim.warmup_steps = "val", 0
    if variant == "paper":
        c.model.checkpoint = "RN50"
        datasets, seeds, counts = common.COOP, common.COOP_SEEDS, tuple(_EPOCHS)
        methods = ("linear", "coop", "clip_adapter", "tip_adapter", "tip_adapter_f")
    else:
        datasets, seeds, counts = ("digits", "letters"), common.COOP_SEEDS[:2], (1, 4, 16)
        methods = ("linear", "coop", "tip_adapter", "tip_adapter_f")
    c.eval.every_epochs = max(_EPOCHS.values())  # nothing is chosen between the first and the last
    for dataset in datasets:
        on = {"data.name": dataset}
        zero_shot = common.fixed(on | {"method.name": "tp", "data.templates": "ensemble"})
        c.sweep += grid(zero_shot, seeds[:1])
        for method in methods:
            for shots in counts:
                runs = grid(
                    common.fixed(on | {"method.name": method, "data.few_shot": shots}),
                    seeds,
                    common.SHOT_SEED,
                )
                more = tuple(_keys(method, dataset, shots, variant).items())
                c.sweep += tuple((name, (*overrides, *more)) for name, overrides in runs)
    return c
