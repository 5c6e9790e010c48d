"""What the sweeps share: the paper's base and its laptop-sized stand-in."""

from pathlib import Path

from configs import adaviprompt_cifar10, quickstart
from vprompt_jax.config import grid

# AdaViPro's nine datasets, by TFDS name.
DATASETS = (
    "cifar10",
    "cifar100",
    "dtd",
    "food101",
    "sun397",
    "oxford_flowers102",
    "ucf101",
    "eurosat",
    "oxford_iiit_pet",
)
# CoOp's eleven, ImageNet first.
COOP = (
    "imagenet2012",
    "caltech101",
    "oxford_iiit_pet",
    "cars196",
    "oxford_flowers102",
    "food101",
    "fgvc_aircraft",
    "sun397",
    "dtd",
    "eurosat",
    "ucf101",
)
IMAGENET_SHIFTS = ("imagenet_v2", "imagenet_sketch", "imagenet_a", "imagenet_r")
FGVC = ("caltech_birds2011", "nabirds", "oxford_flowers102", "stanford_dogs", "cars196")
VTAB = (
    "caltech101",
    "cifar100",
    "dtd",
    "oxford_flowers102",
    "oxford_iiit_pet",
    "sun397_vtab",
    "svhn_cropped",
    "patch_camelyon",
    "eurosat",
    "resisc45",
    "diabetic_retinopathy",
    "clevr_count",
    "clevr_distance",
    "dmlab",
    "kitti_distance",
    "dsprites_x",
    "dsprites_orientation",
    "smallnorb_azimuth",
    "smallnorb_elevation",
)
# Activation prompts and their baselines; tokens and low-rank additions need a transformer.
RESNET_METHODS = (
    "tp",
    "vp",
    "adavipro",
    "ap",
    "linear",
    "full",
    "norm",
    "bitfit",
    "adapter",
    "ssf",
)
VIT_METHODS = (*RESNET_METHODS, "lora", "vpt_shallow", "vpt_deep")
# What the embedded ViT shows beside them.
MINI_METHODS = (
    *VIT_METHODS,
    "lor_vp",
    "ilm",
    "blm",
    "blm_plus",
    "evp",
    "auto_vp",
    "gate_vpt",
    "e2vpt",
    "coop",
    "cocoop",
    "maple",
    "promptsrc",
    "clip_lora",
    "clip_adapter",
    "tip_adapter",
    "tip_adapter_f",
    "wise_ft",
    "adaptformer",
    "dora",
)
SEEDS = (0, 1, 2)
SHOT_SEED = ("data.shot_seed",)
VPT_SEEDS = (42, 44, 82, 100, 800)  # of VPT's code
COOP_SEEDS = (1, 2, 3)  # of CoOp's code, and of those that follow it; they choose the shots, too
PAIRED_SEEDS = (0, 1, 2, 3, 4)  # where two methods are compared

# Ours. A prompt that starts as noise does harm at first: it trains alone for most of the run, and
# then the validation images say whether the generator starts at "on" or at "off".
FROM_NOISE = {"mask.start": "better", "mask.hold": 0.75, "mask.sampled": 0.9}


def base(name: str, variant: str):
    """The config that a sweep's runs vary.

    Args:
      name: of the sweep.
      variant: "paper": CLIP ViT-B/32 and AdaViPro's settings on CIFAR-10 (a sweep names other
        datasets itself). "mini": the embedded ViT and digits, an epoch. A folder of photographs,
        or an .npz of `vprompt_jax.data.save`: as "mini", with these images.

    Raises:
      FileNotFoundError: if it is none; `launch.py` shows the message of that kind alone.
    """
    if variant == "paper":
        c = adaviprompt_cifar10.get_config()
    elif variant == "mini" or Path(variant).exists():
        c = quickstart.get_config()
        c.optim.epochs = 1
        c.optim.average = 0.0
        c.mask.hold, c.mask.sampled = 0.25, 0.6  # the masks stay mixed (docs/mini.md)
        c.log.every_steps = 10
        if variant != "mini":
            c.update_from_flattened_dict(images_at(variant))
    else:
        raise FileNotFoundError(
            f"{name}.py:{variant}: the variants are paper, mini and a folder of photographs"
        )
    c.name = f"{name}_{Path(variant).stem}"
    return c


def from_imagenet(name: str, variant: str, elsewhere: tuple[str, ...], mini: tuple[str, ...]):
    """A sweep of methods trained on ImageNet's 16 shots, or on the digits, and measured elsewhere.

    Epochs, batches, depths and rates are those of the configs for this in CoOp's, MaPLe's and
    PromptSRC's code.

    Args:
      name, variant: as of `base`.
      elsewhere: `eval.also` of the paper's runs.
      mini: the same of runs on the digits.
    """
    c = base(name, variant)
    if variant != "paper":
        c.eval.also = mini
        return c
    c.model.checkpoint, c.data.name, c.data.few_shot = "ViT-B/16", "imagenet2012", 16
    c.data.augment, c.optim.warmup_steps = "flip_crop", 0
    c.eval.also = elsewhere
    c.sweep = grid(fixed({"method.name": "tp"}), COOP_SEEDS[:1])
    words = {"context.tokens": 4, "context.start": "a photo of a"}
    for method, epochs, batch, keys in (
        ("coop", 50, 32, words),
        ("cocoop", 10, 1, {}),
        ("maple", 2, 4, {"maple.depth": 3, "maple.learning_rate": 0.0026}),
        ("promptsrc", 20, 4, {"context.depth": 3, "vpt.depth": 3, "optim.average_mean": 0.3,
                              "optim.average_width": 0.5}),
    ):  # fmt: skip
        schedule = {"optim.epochs": epochs, "optim.batch_size": batch}
        c.sweep += named(method, schedule | keys, COOP_SEEDS, SHOT_SEED)
    return c


def as_vpt(name: str, variant: str, keys: dict, mini: dict):
    """A sweep of methods whose rate and weight decay are chosen on val from VPT's grid.

    Tower, epochs, warm-up, momentum, grid, seeds and the smallest rate of equals are those of VPT's
    code (KMnP/vpt), and so is the prompts' batch. Ours: the linear probe's, 1,024 there, and AP.

    Args:
      name, variant: as of `base`.
      keys: further axes of the paper's runs.
      mini: the same of runs on the embedded ViT.
    """
    c = base(name, variant)
    c.protocol = "val"
    c.search.strategy = "grid"
    shared = "vpt.learning_rate ap.learning_rate head.learning_rate"
    if variant != "paper":
        c.search.space = (
            (shared, "choice", 0.3, 3.0, 10.0),
            ("optim.weight_decay", "choice", 0.0, 1e-3),
        )
        c.optim.epochs, c.optim.warmup_steps = 10, None
        axes = {"data.name": ("digits", "letters"), "method.name": ("linear", "vpt_shallow", "ap")}
        c.sweep = grid(axes | fixed(mini), SEEDS[:2])
        return c
    c.model.checkpoint, c.head.kind = "google/vit-base-patch16-224-in21k", "linear"
    c.vpt.optimizer = "sgd"
    c.optim.epochs, c.optim.warmup_steps, c.optim.warmup_fraction = 100, None, 0.1
    rates = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0)  # for a batch of 256
    c.optim.batch_size = 128
    c.search.space = (
        (shared, "choice", *(rate / 256 * c.optim.batch_size for rate in rates)),
        ("optim.weight_decay", "choice", 0.0, 1e-4, 1e-3, 1e-2),
    )
    methods = {"method.name": ("linear", "vpt_shallow", "vpt_deep", "ap")}
    c.sweep = grid(keys | methods, VPT_SEEDS)
    return c


def named(method: str, keys: dict, seeds: tuple[int, ...], seeded: tuple[str, ...] = ()):
    """Runs of a method, of which the keys say nothing that their names should repeat."""
    runs = grid(fixed({"method.name": method}), seeds, seeded)
    return tuple((name, (*overrides, *keys.items())) for name, overrides in runs)


def own_keys(method: str, variant: str) -> dict:
    """Keys in which a method differs: a frame must leave an image, a map needs many texts."""
    if method == "evp" and variant != "paper":
        return {"prompt.size": 4}
    return {"data.templates": "ensemble"} if method in ("ilm", "blm", "blm_plus") else {}


def fixed(keys: dict) -> dict:
    """Axes of a sweep that have one value each, from keys and values."""
    return {key: (value,) for key, value in keys.items()}


def images_at(path: str) -> dict:
    """Keys of images that the user has: a folder of photographs, or an .npz of arrays."""
    return {"data.source": "arrays" if path.endswith(".npz") else "folder", "data.dir": path}
