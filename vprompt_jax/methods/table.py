"""The table of methods: each row says which parts a method has.

A row is a mapping of config keys to values. It fills the keys that a config leaves open, so a
config or the command line can override any of them, and compose: `--config.method.name=adavipro
--config.ap.positions="(3,)" --config.head.kind=linear` trains AdaViPro's prompt and mask, an
activation prompt and a linear head together.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from vprompt_jax.methods import registry
from vprompt_jax.process.errors import UserError


@dataclasses.dataclass(frozen=True)
class Method:
    """One row.

    Attributes:
      summary: a line for the reader.
      title: what tables and figures call it.
      parts: config keys and values that differ from a method without parts.
      baseline: the method that it is paired with in reports; "" for none.
    """

    summary: str
    title: str
    parts: Mapping[str, Any]
    baseline: str = ""

    @property
    def defaults(self) -> dict[str, Any]:
        """Values of config keys, with the switches of the parts that the method lacks."""
        return {**dict(registry.switches()), **self.parts}


def row(summary: str, *, title: str = "", baseline: str = "", **parts: Any) -> Method:
    """A row from its differences to a method without parts, `__` standing for the dot."""
    return Method(summary, title, {k.replace("__", "."): v for k, v in parts.items()}, baseline)


METHODS: dict[str, Method] = {
    "tp": row("text prompts: zero-shot CLIP, nothing is trained", title="TP (zero-shot)"),
    "vp": row(
        "visual prompt: pixels around (or on) every image",
        title="VP",
        prompt__template="padding",
    ),
    "adavipro": row(
        "the visual prompt, added per region where the image allows",
        title="AdaViPro",
        baseline="vp",
        prompt__template="padding",
        mask__kind="adavipro",
    ),
    "evp": row(
        "visual prompt around an image made smaller, with a gradient of length one",
        title="EVP",
        prompt__template="around",
    ),
    "auto_vp": row(
        "visual prompt around an image whose size is learned, too (AutoVP)",
        title="AutoVP",
        prompt__template="around_scaled",
    ),
    "lor_vp": row(
        "visual prompt of low rank over the whole image, with a linear layer",
        title="LoR-VP",
        prompt__template="low_rank",
        head__kind="linear",
    ),
    "ap": row(
        "activation prompt: one perturbation inside the tower", title="AP", ap__positions=(0,)
    ),
    "ilm": row(
        "visual prompt, a supervised tower's classes or CLIP's texts mapped to the target's",
        title="ILM-VP",
        prompt__template="padding",
        head__kind="mapping",
    ),
    "blm": row(
        "as ilm, with a weight for every source class (BLM)",
        title="BLM",
        prompt__template="padding",
        head__kind="mapping",
        head__mapping="bayesian",
    ),
    "blm_plus": row(
        "as blm, from the likeliest source classes' probabilities (BLM+)",
        title="BLM+",
        prompt__template="padding",
        head__kind="mapping",
        head__mapping="bayesian_top",
    ),
    "linear": row(
        "linear probe on frozen image features", title="linear probe", head__kind="linear"
    ),
    "coop": row(
        "learned context tokens before the class names (CoOp)",
        title="CoOp",
        context__kind="unified",
    ),
    "cocoop": row(
        "learned context tokens that each image moves (CoCoOp)",
        title="CoCoOp",
        context__kind="image",
        context__tokens=4,
        context__start="a photo of a",
    ),
    "maple": row(
        "learned context in both towers: the image's are projections of the texts' (MaPLe)",
        title="MaPLe",
        maple__tokens=2,
    ),
    "promptsrc": row(
        "learned context in both towers, kept near the frozen CLIP (PromptSRC)",
        title="PromptSRC",
        context__kind="unified",
        context__tokens=4,
        context__start="a photo of a",
        context__depth=9,
        context__learning_rate=0.0025,
        vpt__kind="deep",
        vpt__tokens=4,
        vpt__depth=9,
        vpt__learning_rate=0.0025,
        vpt__optimizer="sgd",
        consistency__kind="l1",
        optim__average_mean=0.75,
    ),
    "clip_lora": row(
        "low-rank additions in both towers (CLIP-LoRA)",
        title="CLIP-LoRA",
        lora__rank=2,
        lora__alpha=2**0.5,
        lora__targets=("q", "k", "v"),
        lora__learning_rate=2e-4,
        text_lora__rank=2,
    ),
    "clip_adapter": row(
        "a bottleneck on the image features (CLIP-Adapter)",
        title="CLIP-Adapter",
        head__kind="clip_adapter",
    ),
    "tip_adapter": row(
        "a cache of training images' features beside the class texts (Tip-Adapter)",
        title="Tip-Adapter",
        head__kind="tip_adapter",
    ),
    "tip_adapter_f": row(
        "the same cache, whose keys train (Tip-Adapter-F)",
        title="Tip-Adapter-F",
        head__kind="tip_adapter_f",
    ),
    "full": row("full fine-tune of the image tower", title="full fine-tune", tune__weights="all"),
    "wise_ft": row(
        "full fine-tune, whose weights are halfway to the frozen ones at inference (WiSE-FT)",
        title="WiSE-FT",
        tune__weights="all",
        tune__interpolation=0.5,
    ),
    "norm": row(
        "scales and biases of the tower's normalisations",
        title="norm tuning",
        tune__weights="norm",
        tune__learning_rate=1e-2,
    ),
    "bitfit": row(
        "all biases of the tower (BitFit)",
        title="BitFit",
        tune__weights="bias",
        tune__learning_rate=1e-2,
    ),
    "adaptformer": row(
        "bottlenecks beside the tower's MLPs (AdaptFormer)",
        title="AdaptFormer",
        adaptformer__width=64,
    ),
    "lora": row("low-rank additions to the tower's projections (LoRA)", title="LoRA", lora__rank=4),
    "dora": row(
        "low-rank additions to the direction of the projections, and their length (DoRA)",
        title="DoRA",
        dora__rank=4,
    ),
    "adapter": row(
        "bottleneck adapters in the tower's residual branches", title="adapter", adapter__width=64
    ),
    "ssf": row(
        "a scale and a shift after every layer of the tower (SSF)", title="SSF", ssf__kind="all"
    ),
    "vpt_shallow": row(
        "learned tokens before the first block (VPT)", title="VPT shallow", vpt__kind="shallow"
    ),
    "vpt_deep": row("learned tokens before every block (VPT)", title="VPT deep", vpt__kind="deep"),
    "e2vpt": row(
        "learned tokens before every block, and keys and values inside it (E2VPT)",
        title="E2VPT",
        vpt__kind="key_value",
    ),
    "gate_vpt": row(
        "learned tokens before the first block, a gate per block (GateVPT)",
        title="GateVPT",
        vpt__kind="gated",
    ),
}


def lookup(name: str) -> Method:
    """Returns the row of a method.

    Raises:
      UserError: if there is none.
    """
    if name not in METHODS:
        rows = "\n".join(f"  {key}: {row.summary}" for key, row in METHODS.items())
        raise UserError(f"unknown method {name!r}; config.method.name is one of\n{rows}")
    return METHODS[name]


def combination(values: Mapping[str, Any]) -> str:
    """The method of a run by name, with the parts that it has beyond its row's, or lacks.

    Args:
      values: of config keys, by dotted key; the switches of parts that are off may be missing.

    Returns:
      "adavipro", say, or "adavipro without mask + ap + linear head".
    """
    name = values["method.name"]
    if name not in METHODS:
        return str(name)
    usual = METHODS[name].defaults
    lacking, added = [], []
    for switch, off in registry.switches():
        section = switch.partition(".")[0]
        value = values.get(switch)
        here = registry.part_of(section, off if value is None else value)
        there = registry.part_of(section, usual[switch])
        if here is there:
            continue
        if here is None:
            lacking.append(section)
        else:
            added.append(_alone(switch, value, section, here.side))
    return " + ".join([" ".join([name, *(f"without {part}" for part in lacking)]), *added])


def _alone(switch: str, value: Any, section: str, side: str) -> str:
    """What a part is called beside others: as the method that has it alone, if there is one."""
    if side == "head":
        return f"{value} head"
    switches = dict(registry.switches())
    alone = {
        name: method.parts[switch]
        for name, method in METHODS.items()
        if [key for key in method.parts if key in switches] == [switch]
    }
    exact = [name for name, theirs in alone.items() if theirs == value]
    return next(iter([*exact, *alone, section]))


def baseline_of(name: str) -> str:
    """The method, or combination with the same further parts, that one is paired with in reports;
    "" for none."""
    row, space, rest = name.partition(" ")
    baseline = METHODS[row].baseline if row in METHODS else ""
    return baseline and baseline + space + rest


def title_of(name: str) -> str:
    """What tables and figures call a method, or a `combination`."""
    base, *added = name.split(" + ")
    row, space, lacking = base.partition(" ")
    titles = [_title(row) + space + lacking, *map(_title, added)]
    return " + ".join(titles)


def _title(name: str) -> str:
    return METHODS[name].title or name if name in METHODS else name
