"""The README.md of an export: what the model is, how good it was, how to use it."""

from typing import Any

import yaml

from vprompt_jax.clip.checkpoints.locate import REPOSITORY
from vprompt_jax.process.escapes import in_markdown
from vprompt_jax.process.printable import some_of

_WHOLE = """\
`model.stablehlo` holds the whole model, without its weights. It needs none of vprompt_jax's code,
but these packages:

```
pip install {packages}
```

```python
import json

import jax
import numpy as np
from safetensors.numpy import load_file

about = json.load(open("export.json"))
model = jax.export.deserialize(bytearray(open("model.stablehlo", "rb").read()))
weights = load_file("weights.safetensors")
images = np.zeros((2, {side}, {side}, 3), np.uint8)  # RGB, resized so, not normalised
logits = model.call(weights, images)  # float32 [2, {classes}]
print([about["class_names"][i] for i in logits.argmax(-1)])
```

On one platform and batch size the logits are bit-equal to those of the run it came from; elsewhere
they agree as far as float arithmetic does. Lowered for {platforms}.

"""
_BARE = """\
`adaptation.safetensors` holds what was trained. With vprompt_jax and the base model (its file is
named as `model.checkpoint` in `config.json`):

```
vprompt predict --workdir THIS_FOLDER IMAGE...
```
"""


# The same weights on the hub, whose metadata take no other names.
_ON_THE_HUB = {
    "ViT-B/32": "openai/clip-vit-base-patch32",
    "ViT-B/16": "openai/clip-vit-base-patch16",
    "ViT-L/14": "openai/clip-vit-large-patch14",
    "ViT-L/14@336px": "openai/clip-vit-large-patch14-336",
}


def _metadata(method: str, base: str, result: dict[str, Any]) -> dict[str, Any]:
    """What the hub reads: its library, task, base model and measured accuracy."""
    base = _ON_THE_HUB.get(base, base)
    dataset = result["dataset"]
    metric = {"type": "accuracy", "value": round(result["test_accuracy"], 4)}
    measured = {
        "task": {"type": "image-classification"},
        "dataset": {"name": dataset, "type": dataset},
        "metrics": [metric],
    }
    index = {"name": f"{method} on {dataset}", "results": [measured]}
    on_hub = base in _ON_THE_HUB.values() or REPOSITORY.fullmatch(base)
    return {
        "library_name": "vprompt_jax",
        "pipeline_tag": "image-classification",
        **({"base_model": base.removeprefix("hf-hub:").partition("@")[0]} if on_hub else {}),
        "tags": ["clip", "visual-prompting", "jax"],
        "metrics": ["accuracy"],
        "model-index": [index],
    }


def _percent(value: float | None) -> str:
    return "not measured" if value is None else f"{100 * value:.2f} %"


def text(about: dict[str, Any], config: dict[str, Any], *, bare: bool) -> str:
    """Markdown, with the fields that Hugging Face's hub reads first.

    Args:
      about: the contents of `export.json`.
      config: the contents of `config.json`.
      bare: whether the adaptation is all there is.
    """
    result = about["result"]
    base = config["model"]["checkpoint"]
    method = result.get("combination", result["method"])
    sizes = result["split_sizes"]
    names = about["class_names"]
    shown = some_of(names, separator=", ")
    parts = result["trainable_parameters_by_part"]
    rows = [
        ("base model", f"{base}, frozen"),
        ("dataset", f"{result['dataset']}: {sizes['train']:,} train, {sizes['val']:,} val, "
                    f"{sizes['test']:,} test images"),
        ("classes", f"{len(names)}: {shown}"),
        ("method", method),
        ("trained parameters", f"{result['trainable_parameters']:,} "
                               f"({', '.join(f'{k} {v:,}' for k, v in parts.items()) or 'none'})"),
        ("test accuracy, last step", _percent(result["test_accuracy"])),
        ("test accuracy, best on val", _percent(result["test_accuracy_best_val"])),
        ("test accuracy, zero-shot", _percent(result["zero_shot_accuracy"])),
        ("protocol, seed", f"{result['protocol']}, {result['seed']}"),
        ("parameters used here", about["parameters"]),
        ("versions", ", ".join(f"{k} {v}" for k, v in about["versions"].items())),
    ]  # fmt: skip
    table = "\n".join(f"| {name} | {in_markdown(value)} |" for name, value in rows)
    whole = _WHOLE.format(
        side=about["input_side"],
        classes=len(names),
        platforms=", ".join(about["platforms"]),
        packages=" ".join(about["packages"]),
    )
    return f"""\
---
{yaml.safe_dump(_metadata(method, base, result), sort_keys=False).rstrip()}
---

# {method} on {in_markdown(result["dataset"])}

An adaptation of a frozen CLIP, trained with vprompt_jax. The numbers were measured in that run.

| | |
| --- | --- |
{table}

## Use

{"" if bare else whole}{_BARE}
The labels are the {len(names)} classes above and nothing else: an image of none of them still gets
one. How the model does on images unlike its dataset's was not measured.
"""
