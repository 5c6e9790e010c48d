"""The sections that every run has, whichever parts its method trains."""

import dataclasses
from typing import Literal

from vprompt_jax.schema.keys import LARGE, Section, key

Protocol = Literal["val", "paper"]
Activation = Literal["quick_gelu", "gelu", "gelu_tanh", "silu"]
Augmentation = Literal["none", "flip", "flip_crop", "trivial", "rand"]
Half = Literal["all", "base", "new"]  # of a dataset's classes
Remat = Literal["none", "dots", "blocks"]
Tracker = Literal["none", "wandb", "mlflow"]
OnBadImage = Literal["stop", "skip"]
MANY = 2**31 - 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class RootSection(Section):
    """The keys that stand in no section."""

    name: str = key("run", "names the default workdir")
    seed: int = key(0, "of initialisation, order of examples and Gumbel noise", low=0, high=MANY)
    protocol: Protocol = key(
        "val",
        "val: a validation split selects and training sees the rest of train; paper: all of train "
        "is trained on and the last step is reported (VP, AdaViPro)",
    )
    profile: int = key(
        0,
        "steps, from the tenth on, to trace into the workdir (TensorBoard, Perfetto)",
        low=0,
        high=1000,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelSection(Section):
    """The frozen CLIP."""

    checkpoint: str = key(
        "mini-clip-rn",
        "embedded model, file, folder, or public name (docs/checkpoints.md)",
        label="CLIP",
        names_file=True,
    )
    activation: Activation | None = key(None, "activation, over what the checkpoint says")
    dtype: Literal["float32", "bfloat16"] = key(
        "float32",
        "of the frozen towers and of the mask generator's first convolution; bfloat16 is for "
        "accelerators (docs/benchmark.md)",
    )
    matmul_precision: Literal["default", "high", "highest"] = key(
        "highest", "of float32 matrix products; TF32 on GPUs is `default`"
    )
    remat: Remat = key(
        "none",
        "what the backward pass computes again to save memory: dots is everything but matrix "
        "products, blocks everything but the blocks' inputs (on CPUs: docs/benchmark.md)",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSection(Section):
    """The images, their splits and their texts."""

    source: Literal["digits", "tfds", "folder", "manifest", "huggingface", "arrays", "given"] = key(
        "digits", "digits is embedded, given is passed in Python", label="data source"
    )
    name: str = key(
        "",
        "a row of data/catalogue.py, or TFDS's name; of the embedded ones: digits, digits_grey, "
        "digits_faint, digits_outline or letters",
        label="dataset",
    )
    dir: str = key("", "the folder or file, or TFDS's data_dir", names_file=True)
    label: str = key("", "field of the label, where it is not the usual one")
    templates: Literal["single", "ensemble"] = key(
        "single", "single (VP) or CLIP's ensemble, whose embeddings are averaged"
    )
    template: str | None = key(
        None, 'instead of the dataset\'s own text templates: "a photo of a {}"'
    )
    split: Literal["official", "vtab"] = key("official", "vtab: VTAB-1k's 800 + 200 and test")
    split_file: str = key(
        "",
        "CoOp's JSON of train, val and test; paths are relative to data.dir (source=folder) or "
        "TFDS's file names",
        names_file=True,
    )
    classes: Half = key(
        "all",
        "base: the first half of the classes alone, and accuracy on the others is measured, too; "
        "new: the second half",
        source="CoCoOp's code",
        label="classes",
    )
    few_shot: int | None = key(
        None,
        "training images per class",
        low=1,
        high=MANY,
        label="shots",
        axis="training images per class",
    )
    shot_seed: int | None = key(
        None, "of few_shot's choice of images; none: split_seed", low=0, high=MANY
    )
    val_shots: int | None = key(
        None,
        "validation images per class at most, with few_shot; none: as few_shot, but at most 4, as "
        "CoOp",
        low=1,
        high=MANY,
    )
    val_fraction: float = key(
        0.1,
        "of train, per class, where protocol=val and there is no val split",
        low=0.001,
        high=0.5,
    )
    test_fraction: float | None = key(
        None, "of train, where there is no test split; usually 0.2", low=0.001, high=0.9
    )
    split_seed: int = key(0, "of these cuts and of few_shot", low=0, high=MANY)
    augment: Augmentation = key(
        "none",
        "flip_crop: flips and random resized crops; trivial, rand: TrivialAugment, RandAugment",
    )
    on_bad_image: OnBadImage = key("stop", "skip: leave out unreadable images and list them")
    workers: int = key(4, "threads that decode ahead", low=1, high=256)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MethodSection(Section):
    """The method, which says which parts there are."""

    name: str = key("adavipro", "a row of vprompt_jax/methods/table.py", label="method")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CacheSection(Section):
    """Activations below everything that is trained, computed once per image."""

    mode: Literal["on", "auto", "off"] = key(
        "auto", "on: refuse to run without; auto: where it fits"
    )
    dtype: Literal["float32", "bfloat16", "float16"] = key("float32", "of stored activations")
    storage: Literal["memory", "disk"] = key("memory", "disk: a memory-mapped file in the workdir")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimSection(Section):
    """What all parts' optimisers share: a cosine to 0 after a linear warm-up."""

    batch_size: int = key(256, "over all devices", low=1, high=2**20)
    epochs: int = key(1000, "passes over train", low=0, high=10**6, label="epochs")
    momentum: float = key(0.9, "SGD momentum", low=0, high=0.999999)
    weight_decay: float = key(0.0, "L2 term of SGD, decoupled in AdamW", low=0, high=LARGE)
    warmup_steps: int | None = key(
        None,
        "steps of linear warm-up, fewer than the run has; none: 1000, as VP, but at most a tenth "
        "of the run",
        low=0,
        high=MANY,
    )
    warmup_fraction: float | None = key(
        None, "warm-up as a share of all steps, instead of warmup_steps", low=0, high=1
    )
    class_weights: Literal["none", "balanced"] = key(
        "none",
        "of the loss: balanced gives every class the same weight, however few images it has",
    )
    label_smoothing: float = key(
        0.0, "share of a label that the training loss spreads over all classes", low=0, high=0.99
    )
    parts: int = key(
        1, "of a batch, taken one after another: as many times less memory", low=1, high=2**20
    )
    average: float = key(
        0.0,
        "decay of a moving average of the trained parameters, which is what is evaluated and kept; "
        "0: none",
        low=0,
        high=0.999999,
    )
    average_mean: float | None = key(
        None,
        "share of the run that has the most weight in an average of the trained parameters with "
        "the weights of a Gaussian, instead of average; 0: none",
        low=0,
        high=1,
    )
    average_width: float = key(
        0.05,
        "standard deviation of that Gaussian, as a share of the run",
        low=1e-6,
        high=1,
        source="PromptSRC's code: one of 20 epochs",
    )
    patience: int | None = key(
        None,
        "evaluations on val that bring no higher accuracy, after which the run ends; none: it does "
        "not end early",
        low=1,
        high=MANY,
    )
    max_bad_steps: int = key(
        10,
        "steps in a row whose loss or gradient is not finite, after which the run ends",
        low=1,
        high=MANY,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalSection(Section):
    """Evaluation on val, which also saves, and of the finished run."""

    batch_size: int = key(512, "over all devices", low=1, high=2**20)
    every_epochs: int = key(10, "epochs between evaluations", low=1, high=MANY)
    also: tuple[str, ...] = key(
        (),
        "datasets of the same source that the finished run is measured on, too: NAME, NAME:base or "
        "NAME:new (docs/results.md)",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointSection(Section):
    """Saves between evaluations."""

    every_steps: int = key(1000, "steps between saves", low=1, high=MANY)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogSection(Section):
    """Lines of metrics."""

    every_steps: int = key(50, "steps between lines", low=1, high=MANY)
    tracker: Tracker = key(
        "none", "gets the metrics, too; needs the extra of its name, vprompt_jax[wandb], say"
    )


# By the name of the section in a config.
SECTIONS: dict[str, type[Section]] = {
    "model": ModelSection,
    "data": DataSection,
    "method": MethodSection,
    "cache": CacheSection,
    "optim": OptimSection,
    "eval": EvalSection,
    "checkpoint": CheckpointSection,
    "log": LogSection,
}
# Keys and what may be set in their place; a method's value of the one gives way to the other.
ALTERNATIVES = (("optim.average_mean", "optim.average"),)
