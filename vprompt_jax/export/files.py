"""A finished run as files to hand on.

An export holds the bare adaptation (what was trained, often a few hundred KB) and the whole model
as StableHLO with its weights, which needs jax and safetensors but none of this package's code.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.export
import numpy as np
from flax import traverse_util

import vprompt_jax
from vprompt_jax.clip.checkpoints import formats
from vprompt_jax.config import files as named_files
from vprompt_jax.config import resolve
from vprompt_jax.export import card
from vprompt_jax.inference.adapted import Adapted, adapted_from, softmax
from vprompt_jax.process import hashes
from vprompt_jax.process.errors import UserError

FORMAT = 1  # of the folder; raised when an older version could not read it any more
PLATFORMS = ("cpu", "cuda", "tpu")


class Exported:
    """An export's StableHLO with its weights, as this package calls it.

    Attributes:
      class_names: in the order of the logits.
      resolution: side of the input images, in pixels.
    """

    def __init__(
        self, class_names: Sequence[str], resolution: int, call: Callable[[np.ndarray], Any]
    ):
        self.class_names, self.resolution = tuple(class_names), resolution
        self._call = call

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Logits float32 [B, C] of images uint8 [B, resolution, resolution, 3]."""
        return np.asarray(self._call(images))

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Softmax of `logits`."""
        return softmax(self.logits(images))


def _flat(tree: Any) -> dict[str, np.ndarray]:
    return traverse_util.flatten_dict(jax.device_get(tree), sep="/")


def _digest(frozen: Any) -> str:
    """SHA-256 over the frozen weights: an adaptation fits no others.

    Text embeddings are left out: they are computed, to the last bit not alike everywhere.
    """
    return hashes.of_arrays({k: v for k, v in frozen.items() if k != "constants"})


def stablehlo(adapted: Adapted, side: int) -> bytes:
    """The model as a serialised `jax.export.Exported`.

    It maps flat weights by name and images uint8 [b, side, side, 3], for any b, to float32 logits
    [b, C], on each of `PLATFORMS`; resizing and CLIP's normalisation are inside.
    """

    def logits(weights: Any, images: jax.Array) -> jax.Array:
        return adapted.apply(traverse_util.unflatten_dict(weights, sep="/"), images)

    shapes = jax.eval_shape(lambda: adapted.variables)
    weights = traverse_util.flatten_dict(shapes, sep="/")
    (batch,) = jax.export.symbolic_shape("b")
    images = jax.ShapeDtypeStruct((batch, side, side, 3), np.uint8)
    exported = jax.export.export(jax.jit(logits), platforms=PLATFORMS)(weights, images)
    return bytes(exported.serialize())


def write(
    adapted: Adapted, out: Path, *, side: int | None = None, bare: bool = False
) -> list[Path]:
    """Writes an export.

    Args:
      adapted: what is exported.
      out: folder; made if need be.
      side: of the input images, in pixels; None for the tower's resolution.
      bare: only the adaptation, which needs this package and the base model to be used.

    Returns:
      The files written.

    Raises:
      UserError: if the folder holds something else.
    """
    if out.exists() and any(out.iterdir()) and not is_export(out):
        raise UserError(f"{out} holds other files: choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    config = adapted.config.as_dict()
    config["model"]["checkpoint"] = Path(config["model"]["checkpoint"]).name  # no one's folders
    for key in ("dir", "split_file"):
        if path := config["data"][key]:
            config["data"][key] = Path(path).absolute().name
    about = {
        "format": FORMAT,
        "versions": adapted.result["versions"] | {"jax": jax.__version__,
                                                  "vprompt_jax": vprompt_jax.__version__},
        "class_names": list(adapted.class_names),
        "input_side": side or adapted.resolution,
        "parameters": "best on val" if adapted.best else "of the last step",
        "platforms": list(PLATFORMS),
        "frozen_sha256": _digest(adapted.adaptation.frozen),
        "result": adapted.result,
    }  # fmt: skip
    files: dict[str, bytes] = {}
    if not bare:
        files["model.stablehlo"] = stablehlo(adapted, about["input_side"])
        formats.write_safetensors(out / "weights.safetensors", _flat(adapted.variables), {})
    learned = dict(adapted.params)
    if adapted.assigned:
        learned["assigned"] = adapted.assigned
    formats.write_safetensors(out / "adaptation.safetensors", _flat(learned), {})
    files["config.json"] = (json.dumps(config, indent=2, sort_keys=True) + "\n").encode()
    files["README.md"] = card.text(about, config, bare=bare).encode()
    files["export.json"] = (json.dumps(about, indent=2) + "\n").encode()
    for name, content in files.items():
        (out / name).write_bytes(content)
    return sorted(p for p in out.iterdir() if p.is_file())


def is_export(folder: Path) -> bool:
    """Whether a folder is one that `write` wrote."""
    return (folder / "export.json").is_file()


def _about(folder: Path) -> dict[str, Any]:
    if not is_export(folder):
        raise UserError(f"{folder} holds no export (no export.json)")
    about = formats.read_json(folder / "export.json")
    if about.get("format", 0) > FORMAT:
        raise UserError(
            f"{folder} was exported by vprompt_jax {about['versions']['vprompt_jax']} in format "
            f"{about['format']}; this version, {vprompt_jax.__version__}, reads formats up to "
            f"{FORMAT}: update vprompt_jax"
        )
    return about


def load(folder: Path, *, checkpoint: Path | str | None = None) -> Exported | Adapted:
    """Loads an export: its StableHLO, or a bare adaptation with the base model it names.

    Args:
      folder: of the export.
      checkpoint: of a bare export, the file of its base model.

    Raises:
      UserError: if there is none, or a newer version made it, or the base model is missing or
        another one.
    """
    about = _about(folder)
    if not (folder / "model.stablehlo").is_file():
        return _load_adaptation(folder, about, checkpoint)
    if checkpoint is not None:
        raise UserError(f"{folder} is a full export, which holds its weights: omit --checkpoint")
    try:
        exported = jax.export.deserialize(bytearray((folder / "model.stablehlo").read_bytes()))
    except Exception as error:  # jax raises many kinds over bytes it does not know
        raise UserError(
            f"{folder / 'model.stablehlo'} is damaged, or newer than this jax {jax.__version__} "
            f"(it was made with {about['versions']['jax']}): {error}"
        ) from error
    weights = jax.device_put(formats.read_arrays(folder / "weights.safetensors"))
    call = jax.jit(exported.call)
    return Exported(about["class_names"], about["input_side"], lambda x: call(weights, x))


def _load_adaptation(folder: Path, about: dict[str, Any], checkpoint: Path | str | None) -> Adapted:
    config = resolve(formats.read_json(folder / "config.json"))
    if checkpoint is not None:
        config = named_files.naming(config, {"model.checkpoint": str(checkpoint)})
    adaptation = adapted_from(config, about["class_names"], about["result"]["templates"])
    if _digest(adaptation.frozen) != about["frozen_sha256"]:
        raise UserError(
            f"{folder} was trained on other weights than {config.model.checkpoint}: name the right "
            f"file by --checkpoint, or as model.checkpoint in {folder / 'config.json'}"
        )
    flat = formats.read_arrays(folder / "adaptation.safetensors")
    params = traverse_util.unflatten_dict(flat, sep="/")
    assigned = params.pop("assigned", {})
    return Adapted(adaptation, params, assigned, about["result"])
