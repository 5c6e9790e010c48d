"""LoRA inside the text tower, as CLIP-LoRA (Zanella and Ben Ayed, arXiv 2405.18541) has it.

CLIP-LoRA puts the same additions into both towers. The settings are those of the authors' code
(MaxZanella/CLIP-LoRA), but for its dropout of 0.25 on the additions' inputs, which is left out. The
code divides alpha by the square root of the rank.
"""

import dataclasses

import jax
from flax import traverse_util

from vprompt_jax.adapters import lora
from vprompt_jax.clip.sites import Site
from vprompt_jax.parts import Part, Surroundings, TextPart
from vprompt_jax.parts.part import needs_text
from vprompt_jax.schema import Optimizer, TrainedSection, key, learning_rate, optimizer

_CODE = "CLIP-LoRA's code"


class TextLoRA(TextPart):
    """Low-rank additions to dense layers of the text tower.

    Attributes:
      additions: at the layers, whose names are those of the text tower.
    """

    additions: lora.LoRA

    def create(self) -> None:
        self.additions.create()

    def layer(self, name: str, x: jax.Array, y: jax.Array) -> jax.Array:
        return self.additions(name, x, y) if self.additions.acts_at(name) else y


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextLoRASection(TrainedSection):
    """Low-rank additions in the text tower."""

    rank: int = key(0, "columns of the first factor; 0: none", low=0, high=2**16)
    alpha: float = key(
        2**0.5,
        "the addition is scaled by alpha / rank",
        low=1e-6,
        high=1e30,
        source=f"{_CODE}: 1 over the square root of a rank of 2",
    )
    targets: tuple[str, ...] = key(("q", "k", "v"), "of q, k, v, out, fc, proj", source=_CODE)
    learning_rate: float = learning_rate(2e-4, _CODE)
    optimizer: Optimizer = optimizer("adamw", _CODE)


class TextLoRAPart(Part[TextLoRASection]):
    """Low-rank additions to dense layers of the text tower."""

    name = "text_lora"
    section = TextLoRASection
    switch = "rank"
    side = "text"
    order = 20

    def build(self, section: TextLoRASection, around: Surroundings) -> TextLoRA:
        text = needs_text(f"text_lora.rank={section.rank}", around, "config.text_lora.rank=0")
        lora.check("text_lora", section.rank, section.targets, text.width)
        sites = []
        for path, kernel in traverse_util.flatten_dict(around.variables["params"]["text"]).items():
            inputs, *outputs = kernel.shape
            site = Site("/".join(path[:-1]), (inputs,), tuple(outputs), entry=0)
            if path[-1] == "kernel" and lora.targets_at(site, section.targets):
                sites.append(site)
        return TextLoRA(lora.LoRA(tuple(sites), section.rank, section.alpha, section.targets))


PART = TextLoRAPart()
