"""Configuration: every key with its meaning, and the checks that come before anything is loaded."""

import difflib
import hashlib
import json
import re
import reprlib
from typing import Any

import ml_collections
from ml_collections import config_dict

from vprompt_jax.config import values
from vprompt_jax.methods import table
from vprompt_jax.process.errors import UserError


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
    # Of the frozen towers, and of the mask generator's first convolution: float32 | bfloat16 (for
    # accelerators: docs/benchmark.md).
    c.model.dtype = "float32"
    c.model.matmul_precision = "highest"  # default | high | highest; TF32 on GPUs is "default"

    # What the backward pass computes again to save memory: none | dots (all but matrix products) |
    # blocks (all but the blocks' inputs). On a CPU it takes a flag to save much: docs/benchmark.md.
    c.model.remat = "none"

    c.data = ml_collections.ConfigDict()
    # digits (embedded) | tfds | folder | manifest | huggingface | arrays | given (in Python)
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
    c.method.name = "adavipro"  # a row of vprompt_jax/methods.py

    # What follows describes the parts; the method sets which there are. `learning_rate` and
    # `optimizer` (sgd | adamw) are each part's own.
    c.prompt = ml_collections.ConfigDict()  # pixels, added after normalisation
    c.prompt.template = placeholder(str)  # none | padding | fixed_patch | random_patch
    c.prompt.size = placeholder(int)  # pixels: width of the padding, side of a patch
    c.prompt.init = placeholder(str)  # normal: N(0, 1) | zeros

    c.mask = ml_collections.ConfigDict()  # where the prompt is added
    c.mask.kind = placeholder(str)  # none | adavipro
    c.mask.edge = placeholder(str)  # laplacian | sobel | none
    c.mask.region = placeholder(int)  # pixels; divides the resolution
    c.mask.width = placeholder(int)  # channels of the generator
    c.mask.temperature = placeholder(float)  # of the first epoch
    c.mask.temperature_decay = placeholder(float)  # per epoch
    c.mask.temperature_min = placeholder(float)  # 0: none, as published

    c.ap = ml_collections.ConfigDict()  # activation prompts
    # Any of 0..L-1 (input of a block), L (feature vector), "pixels", or the name of a layer whose
    # output it is added to ("resblocks_3/ln_1", "layer1_0/bn2"); () for none.
    c.ap.positions = placeholder(tuple)
    c.ap.shape = placeholder(str)  # full | channel

    c.vpt = ml_collections.ConfigDict()  # learned tokens
    c.vpt.kind = placeholder(str)  # none | shallow | deep
    c.vpt.tokens = placeholder(int)  # per block

    c.adapter = ml_collections.ConfigDict()  # bottleneck adapters
    c.adapter.width = placeholder(int)  # 0: none

    c.lora = ml_collections.ConfigDict()
    c.lora.rank = placeholder(int)  # 0: none
    c.lora.alpha = placeholder(float)  # the addition is scaled by alpha / rank
    c.lora.targets = placeholder(tuple)  # of q, k, v, out, fc, proj

    c.ssf = ml_collections.ConfigDict()  # scale and shift
    c.ssf.kind = placeholder(str)  # none | all

    c.tune = ml_collections.ConfigDict()  # the tower's own weights
    c.tune.weights = placeholder(str)  # none | all | norm | bias

    c.head = ml_collections.ConfigDict()
    c.head.kind = placeholder(str)  # text | linear | mapping
    c.head.mapping = placeholder(str)  # random | frequency | iterative, for kind=mapping
    c.head.solver = placeholder(str)  # sgd: the train step | lbfgs: kind=linear alone, by sklearn

    for part in table.PARTS:
        if part in c:
            c[part].learning_rate = placeholder(float)
            c[part].optimizer = placeholder(str)

    # Activations below what is trained, computed once per image instead of at every step.
    c.cache = ml_collections.ConfigDict()
    c.cache.mode = "auto"  # on: refuse to run without | auto: where it fits | off
    c.cache.dtype = "float32"  # float32 | bfloat16 | float16, of the stored activations
    c.cache.storage = "memory"  # memory | disk: a memory-mapped file in the workdir

    c.optim = ml_collections.ConfigDict()  # a cosine to 0 after a linear warm-up
    c.optim.batch_size = 256  # over all devices
    c.optim.epochs = 1000
    c.optim.momentum = 0.9
    c.optim.weight_decay = 0.0
    c.optim.warmup_steps = 1000
    c.optim.warmup_fraction = placeholder(float)  # of all steps, instead of warmup_steps
    c.optim.max_bad_steps = 10  # in a row whose loss or gradient is not finite, then the run ends

    c.eval = ml_collections.ConfigDict()
    c.eval.batch_size = 512
    c.eval.every_epochs = 10  # evaluation on val, and a checkpoint

    c.checkpoint = ml_collections.ConfigDict()
    c.checkpoint.every_steps = 1000  # a save, beside the one at every evaluation

    c.log = ml_collections.ConfigDict()
    c.log.every_steps = 50

    c.profile = 0  # steps, from the tenth on, to trace into the workdir (TensorBoard, Perfetto)

    # Runs of a sweep: (name, ((key, value), ...)) each, keys as on the command line.
    c.sweep = ()
    return c.lock()


def _flat(config: ml_collections.ConfigDict, prefix: str = "") -> dict[str, Any]:
    items: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, ml_collections.ConfigDict):
            items |= _flat(value, f"{prefix}{key}.")
        else:
            items[prefix + key] = value
    return items


def _checked_types(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """A copy, unlocked, with the default's keys and types.

    Missing keys take their default: a resolved config lacks those of parts that are off.
    """
    checked = default_config()
    known = _flat(checked)
    for key, value in _flat(config).items():
        if key not in known:
            near = _nearest(key, list(known))
            hint = f"; did you mean {near}?" if near else ""
            raise UserError(f"unknown config key config.{key}{hint}")
        if value is None and known[key] is None:
            continue
        section, _, field = key.rpartition(".")
        parent = checked[section] if section else checked
        wanted = parent.get_type(field)
        accepted = {float: (int, float), tuple: (tuple, list)}.get(wanted, wanted)
        # A bool is an int to Python, and never meant as one.
        if not isinstance(value, accepted) or isinstance(value, bool):
            raise UserError(
                f"config.{key}={reprlib.repr(value)}: must be of type {wanted.__name__}"
            )
        try:
            parent[field] = wanted(value)
        except OverflowError as error:
            raise UserError(f"config.{key}={reprlib.repr(value)}: {error}") from error
    return checked.unlock()


def _nearest(key: str, known: list[str]) -> str:
    """Up to three keys that look like one, in full or by their last part; "" if none does."""
    near = difflib.get_close_matches(key, known, 3, 0.75)
    field = key.rpartition(".")[2]
    near += [k for k in known if difflib.get_close_matches(field, [k.rpartition(".")[2]], 1, 0.7)]
    return " or ".join(f"config.{k}" for k in list(dict.fromkeys(near))[:3])


def resolve(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Fills in the method's defaults and checks every value.

    Keys of a part that the method does not have are dropped, so that they neither mislead a
    reader nor make two equal runs look different.

    Returns:
      A locked copy.

    Raises:
      UserError: if a key is unknown, a value is of another type or out of range, or a mask has no
        prompt to act on.
    """
    config = _checked_types(config)
    defaults = table.PART_DEFAULTS | table.lookup(config.method.name).defaults
    for key, value in defaults.items():
        section, field = key.split(".")
        if config[section][field] is None:
            config[section][field] = value
    if not re.fullmatch(r"[^/\\\0.][^/\\\0]{0,199}", config.name):
        raise UserError(f"config.name={config.name!r}: must do as the name of a folder")
    values.check(_flat(config))
    if config.data.source != "digits":
        key = "name" if config.data.source in ("tfds", "given") else "dir"
        if not config.data[key]:
            raise UserError(f"config.data.source={config.data.source} needs config.data.{key}")
    if config.mask.kind != "none" and config.prompt.template == "none":
        raise UserError(
            "config.mask.kind=adavipro needs a prompt to place: set config.prompt.template"
        )
    for section, (field, off) in values.OFF.items():
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
