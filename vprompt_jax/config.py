"""Configuration: every key with its meaning, and the checks that come before anything is loaded."""

import copy
import hashlib
import json
import math
from typing import Any

import ml_collections
from ml_collections import config_dict

from vprompt_jax import methods
from vprompt_jax.clip.variants import ACTIVATIONS
from vprompt_jax.data.augment import AUGMENTATIONS
from vprompt_jax.errors import UserError
from vprompt_jax.prompts.edges import EDGES
from vprompt_jax.prompts.vp import STARTS, TEMPLATES


def default_config() -> ml_collections.ConfigDict:
    """The base that every file in configs/ starts from; unknown keys are refused.

    A key at None takes the method's published default (`vprompt_jax.methods`) or, for sizes, the
    papers' proportion of the tower's resolution.
    """
    placeholder = config_dict.placeholder
    c = ml_collections.ConfigDict()
    c.name = "run"  # names the default workdir
    c.seed = 0  # initialisation, order of examples, Gumbel noise
    # "val": a validation split selects, training sees the rest of train.
    # "paper": all of train is trained on and the last step is reported (VP, AdaViPro).
    c.protocol = "val"

    c.model = ml_collections.ConfigDict()
    c.model.checkpoint = "mini-clip-rn"  # file, or embedded model
    c.model.activation = placeholder(str)  # quick_gelu | gelu, over what the checkpoint says
    c.model.dtype = "float32"  # of the frozen towers: float32 | bfloat16
    c.model.matmul_precision = "highest"  # default | high | highest; TF32 on GPUs is "default"

    c.data = ml_collections.ConfigDict()
    # digits (embedded) | tfds | folder | manifest | huggingface | arrays
    c.data.source = "digits"
    c.data.name = ""  # a row of data/table.py, or TFDS's name
    c.data.dir = ""  # the folder or file, or TFDS's data_dir
    c.data.label = ""  # field of the label, where it is not the usual one
    c.data.templates = "single"  # single (VP) | ensemble (CLIP's, embeddings averaged)
    c.data.template = placeholder(str)  # instead of the dataset's own: "a photo of a {}"
    c.data.split = "official"  # official | vtab: VTAB-1k's 800 + 200 and test
    c.data.split_file = ""  # CoOp's JSON
    c.data.few_shot = placeholder(int)  # training images per class
    c.data.val_fraction = 0.1  # of train, per class, where protocol=val and there is no val split
    c.data.test_fraction = placeholder(float)  # where there is no test split; usually 0.2
    c.data.split_seed = 0  # of these cuts and of few_shot
    c.data.augment = "none"  # none | flip | flip_crop (random resized crop)
    c.data.on_bad_image = "stop"  # stop | skip: leave out unreadable images, and list them
    c.data.workers = 4  # threads that decode ahead

    c.method = ml_collections.ConfigDict()
    c.method.name = "adavipro"  # tp | vp | adavipro | linear

    c.prompt = ml_collections.ConfigDict()
    c.prompt.template = placeholder(str)  # none | padding | fixed_patch | random_patch
    c.prompt.size = placeholder(int)  # pixels: width of the padding, side of a patch
    c.prompt.init = placeholder(str)  # normal: N(0, 1) | zeros
    c.prompt.learning_rate = placeholder(float)

    c.mask = ml_collections.ConfigDict()
    c.mask.kind = placeholder(str)  # none | adavipro
    c.mask.edge = placeholder(str)  # laplacian | sobel | none
    c.mask.region = placeholder(int)  # pixels; divides the resolution
    c.mask.width = placeholder(int)  # channels of the generator
    c.mask.temperature = placeholder(float)  # of the first epoch
    c.mask.temperature_decay = placeholder(float)  # per epoch
    c.mask.temperature_min = placeholder(float)  # 0: none, as published
    c.mask.learning_rate = placeholder(float)

    c.head = ml_collections.ConfigDict()
    c.head.kind = placeholder(str)  # text | linear
    c.head.learning_rate = placeholder(float)

    c.optim = ml_collections.ConfigDict()  # SGD with a cosine to 0 after a linear warm-up
    c.optim.batch_size = 256  # over all devices
    c.optim.epochs = 1000
    c.optim.momentum = 0.9
    c.optim.weight_decay = 0.0
    c.optim.warmup_steps = 1000
    c.optim.warmup_fraction = placeholder(float)  # of all steps, instead of warmup_steps

    c.eval = ml_collections.ConfigDict()
    c.eval.batch_size = 512
    c.eval.every_epochs = 10  # evaluation on val, and a checkpoint

    c.log = ml_collections.ConfigDict()
    c.log.every_steps = 50

    # Runs of a sweep: (name, ((key, value), ...)) each, keys as on the command line.
    c.sweep = ()
    return c.lock()


# Allowed values, and (low, high) ranges with both ends allowed, by key.
_CHOICES = {
    "protocol": ("val", "paper"),
    "model.activation": (None, *ACTIVATIONS),
    "model.dtype": ("float32", "bfloat16"),
    "model.matmul_precision": ("default", "high", "highest"),
    "data.source": ("digits", "tfds", "folder", "manifest", "huggingface", "arrays"),
    "data.templates": ("single", "ensemble"),
    "data.split": ("official", "vtab"),
    "data.augment": AUGMENTATIONS,
    "data.on_bad_image": ("stop", "skip"),
    "prompt.template": ("none", *TEMPLATES),
    "prompt.init": STARTS,
    "mask.kind": ("none", "adavipro"),
    "mask.edge": tuple(EDGES),
    "head.kind": ("text", "linear"),
}
_RANGES = {
    "seed": (0, 2**31 - 1),
    "data.val_fraction": (0.001, 0.5),
    "data.test_fraction": (0.001, 0.9),
    "data.few_shot": (1, math.inf),
    "data.split_seed": (0, 2**31 - 1),
    "data.workers": (1, 256),
    "prompt.size": (1, math.inf),
    "prompt.learning_rate": (0, math.inf),
    "mask.region": (1, math.inf),
    "mask.width": (1, math.inf),
    "mask.temperature": (1e-30, math.inf),
    "mask.temperature_decay": (1e-6, 1),
    "mask.temperature_min": (0, math.inf),
    "mask.learning_rate": (0, math.inf),
    "head.learning_rate": (0, math.inf),
    "optim.batch_size": (1, math.inf),
    "optim.epochs": (0, math.inf),
    "optim.momentum": (0, 0.999999),
    "optim.weight_decay": (0, math.inf),
    "optim.warmup_steps": (0, math.inf),
    "optim.warmup_fraction": (0, 1),
    "eval.batch_size": (1, math.inf),
    "eval.every_epochs": (1, math.inf),
    "log.every_steps": (1, math.inf),
}
_OFF = {"prompt": ("template", "none"), "mask": ("kind", "none"), "head": ("kind", "text")}


def _flat(config: ml_collections.ConfigDict, prefix: str = "") -> dict[str, Any]:
    items: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, ml_collections.ConfigDict):
            items |= _flat(value, f"{prefix}{key}.")
        else:
            items[prefix + key] = value
    return items


def resolve(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Fills in the method's defaults and checks every value.

    Keys of a part that the method does not have are dropped, so that they neither mislead a
    reader nor make two equal runs look different.

    Returns:
      A locked copy.

    Raises:
      UserError: if a value is out of range, or a mask has no prompt to act on.
    """
    config = copy.deepcopy(config)
    config.unlock()
    defaults = methods.PART_DEFAULTS | methods.lookup(config.method.name).defaults
    for key, value in defaults.items():
        section, field = key.split(".")
        if config[section][field] is None:
            config[section][field] = value
    for key, value in _flat(config).items():
        if key in _CHOICES and value not in _CHOICES[key]:
            options = ", ".join(str(o) for o in _CHOICES[key] if o is not None)
            raise UserError(f"config.{key}={value!r}: choose one of {options}")
        if key in _RANGES and value is not None:
            low, high = _RANGES[key]
            if not low <= value <= high or not math.isfinite(value):
                raise UserError(f"config.{key}={value!r}: must be between {low} and {high}")
    if config.data.source != "digits":
        key = "name" if config.data.source == "tfds" else "dir"
        if not config.data[key]:
            raise UserError(f"config.data.source={config.data.source} needs config.data.{key}")
    if config.mask.kind != "none" and config.prompt.template == "none":
        raise UserError(
            "config.mask.kind=adavipro needs a prompt to place: set config.prompt.template"
        )
    for section, (field, off) in _OFF.items():
        if config[section][field] == off:
            config[section] = ml_collections.ConfigDict({field: off})
    return config.lock()


def as_json(config: ml_collections.ConfigDict) -> str:
    """The config as sorted, readable JSON."""
    return json.dumps(config.to_dict(), indent=2, sort_keys=True) + "\n"


def fingerprint(config: ml_collections.ConfigDict) -> str:
    """Eight hex digits that change with any value of a resolved config."""
    return hashlib.sha256(as_json(config).encode()).hexdigest()[:8]


def difference(old: dict, new: dict) -> list[str]:
    """Lines "key: old -> new" for the values in which two configs (as dictionaries) differ."""
    missing = "(absent)"
    a, b = (_flat(ml_collections.ConfigDict(c)) for c in (old, new))
    return [
        f"{key}: {a.get(key, missing)} -> {b.get(key, missing)}"
        for key in sorted(a.keys() | b.keys())
        if a.get(key, missing) != b.get(key, missing)
    ]
