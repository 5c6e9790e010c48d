"""What the papers print, to stand beside what was measured; only values from their texts.

The numbers of AdaViPro's tables that its text does not repeat are not in here.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vprompt_jax.clip.checkpoints.locate import public_name
from vprompt_jax.clip.config import CLIPConfig
from vprompt_jax.clip.variants import VIT_B_32
from vprompt_jax.report.results import Record, spread

ADAVIPRO = "AdaViPro, arXiv 2403.13282"


@dataclasses.dataclass(frozen=True)
class Published:
    """One printed value, of CLIP ViT-B/32.

    Attributes:
      method: name of the method's row.
      dataset: TFDS name.
      keys: config values it was measured with, where they are not the paper's defaults.
      percent: test accuracy in %.
      where: table or section of `ADAVIPRO`.
    """

    method: str
    dataset: str
    keys: Mapping[str, Any]
    percent: float
    where: str


# AdaViPro's defaults (section 4.1), which a value without other `keys` was measured with.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "vp": {"prompt.size": 30},
    "adavipro": {"prompt.size": 30, "mask.region": 32, "mask.edge": "laplacian", "mask.width": 64,
                 "mask.temperature": 5.0, "mask.temperature_decay": 0.98},
}  # fmt: skip

ACCURACIES = (
    Published("adavipro", "cifar10", {}, 95.4, "table 1"),
    Published("adavipro", "eurosat", {}, 96.8, "table 1"),
    Published("vp", "dtd", {"prompt.size": 112}, 38.4, "table 2"),
    Published("vp", "ucf101", {"prompt.size": 112}, 54.5, "table 2"),
    Published("adavipro", "ucf101", {"mask.region": 56}, 70.9, "table 6"),
)

# Differences of accuracy in points, which belong to no single run, and the method they are of.
DIFFERENCES_OF = ("adavipro",)
DIFFERENCES = (
    ("AdaViPro - VP at prompt size 30, mean over nine datasets", 2.2, "section 4"),
    ("AdaViPro - VP over the other prompt sizes, mean", 9.0, "table 2"),
    ("AdaViPro without edges - with edges, DTD", -12.3, "table 4"),
)


def settings_of(published: Published) -> dict[str, Any]:
    """All config values a printed one was measured with."""
    return {**_DEFAULTS[published.method], **dict(published.keys)}


DATASETS = {published.dataset for published in ACCURACIES}


def dataset_of(record: Record) -> str:
    """TFDS name of the dataset that a run is on, as TFDS splits it; "" for any other data."""
    c = record.config
    own = (
        c.get("data.split", "official") != "official"
        or bool(c.get("data.split_file"))
        or c.get("data.classes", "all") != "all"
        or c.get("data.few_shot") is not None
    )
    if c["data.source"] != "tfds" or own:
        return ""
    return str(c["data.name"]).split("/")[0].split(":")[0]


def unlike(record: Record) -> list[str]:
    """In what a run differs from the papers' protocol, beside data and settings; [] if in nothing.

    Whose weights a ViT-B/32 has cannot be told from its shape; that is left to the reader.
    """
    differences = []
    if CLIPConfig.from_json(record.result["clip"]) != VIT_B_32:
        name = public_name(record.config["model.checkpoint"])
        differences.append(f"CLIP {name}, not ViT-B/32")
    if record.result["protocol"] != "paper":
        differences.append(f"protocol {record.result['protocol']}, not paper")
    if record.config["optim.epochs"] != 1000:
        differences.append(f"{record.config['optim.epochs']:,} epochs, not 1,000")
    return differences


def beside(records: Sequence[Record]) -> list[tuple[Published, str, str]]:
    """The printed values for whose dataset, method and settings there are runs.

    Returns:
      Per value: it, ours (mean and deviation in %), and in what else ours differs.
    """
    rows = []
    for published in ACCURACIES:
        wanted = settings_of(published)
        same = [
            r for r in records
            if r.method == published.method
            and dataset_of(r) == published.dataset
            and all(r.config.get(k) == v for k, v in wanted.items())
        ]  # fmt: skip
        if same:
            marks = sorted({mark for r in same for mark in unlike(r)})
            ours = spread(np.array([r.accuracy for r in same]))
            rows.append((published, ours, "; ".join(marks)))
    return rows
