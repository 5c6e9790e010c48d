"""A finished run as files to hand on.

An export holds the bare adaptation (what was trained, often a few hundred KB) and the whole model
as StableHLO with its weights, which needs a few packages (`_NEEDED`) but none of this one's code.
"""

import importlib.metadata
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.export
import numpy as np
from flax import traverse_util

import vprompt_jax
from vprompt_jax.clip.checkpoints import formats
from vprompt_jax.clip.config import CLIPConfig, Resize
from vprompt_jax.config import files as named_files
from vprompt_jax.config import resolve
from vprompt_jax.export import card, hub
from vprompt_jax.inference.adapted import Adapted, adapted_from, checked, of_batch, softmax
from vprompt_jax.inference.adapted import load as load_run
from vprompt_jax.inference.images import Images, batch_of
from vprompt_jax.process import hashes
from vprompt_jax.process.errors import UserError

FORMAT = 1  # of the folder; raised when an older version could not read it any more
PLATFORMS = ("cpu", "cuda", "tpu")
# Packages that call the StableHLO; jax.export reads it with flatbuffers, which jax does not bring.
_NEEDED = ("jax", "flatbuffers", "numpy", "safetensors")
# All that an export may consist of.
_FILES = (
    "README.md",
    "adaptation.safetensors",
    "config.json",
    "export.json",
    "model.stablehlo",
    "weights.safetensors",
)
_LISTED = 5  # files named in one message


class Exported:
    """An export's StableHLO with its weights, as this package calls it.

    Attributes:
      class_names: in the order of the logits.
      resolution: side of the input images, in pixels.
      resize: how an image becomes square; the tower's `config.resize`.
      result: the contents of the run's `result.json`.
    """

    def __init__(
        self,
        result: dict[str, Any],
        class_names: Sequence[str],
        resolution: int,
        call: Callable[[Any, np.ndarray], Any],
        weights: Any,
        resize: Resize,
    ):
        self.class_names, self.resolution, self.resize = tuple(class_names), resolution, resize
        self.result = result
        self._call, self._weights = call, weights

    def logits(self, images: Images) -> np.ndarray:
        """Logits float32 [B, C] of images.

        Args:
          images: as of `Adapted.logits`; those that are not of side `resolution` are resized and
            cropped to it on the host.

        Raises:
          UserError: as `Adapted.logits`.
        """
        pixels = batch_of(images, self.resolution, exact=True, resize=self.resize)
        return checked(of_batch(self._call, self._weights, pixels), self._weights)

    def probabilities(self, images: Images) -> np.ndarray:
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
    """Writes an export, as a whole or not at all.

    It is written to a fresh folder beside the target, which is then renamed, so that a failure
    leaves an older export as it was and nothing of it stays in the new one.

    Args:
      adapted: what is exported.
      out: folder; made if need be.
      side: of the input images, in pixels; None for the tower's resolution.
      bare: only the adaptation, which needs this package and the base model to be used.

    Returns:
      The files written.

    Raises:
      UserError: if the folder holds something else, or cannot be written.
    """
    target = out.resolve()
    try:
        _refuse_other_files(target)
        fresh = target.with_name(f".{target.name}.{os.getpid()}.part")
        fresh.mkdir(parents=True)
        try:
            _write(adapted, fresh, side or adapted.resolution, bare)
            _replace(target, fresh)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        return sorted(out / path.name for path in target.iterdir())
    except OSError as error:
        raise UserError(
            f"cannot write an export to {out}: {error}; choose another --out"
        ) from error


def _refuse_other_files(target: Path) -> None:
    """Lets nothing but an export be replaced."""
    if not target.exists():
        return
    others = sorted(path.name for path in target.iterdir() if path.name not in _FILES)
    if others or (any(target.iterdir()) and not is_export(target)):
        listed = ", ".join(others[:_LISTED]) or "no export.json"
        raise UserError(f"{target} holds other files ({listed}): choose another --out")


def _replace(target: Path, fresh: Path) -> None:
    """Puts a folder in the place of another one, which comes back if that fails."""
    if not target.exists():
        fresh.rename(target)
        return
    old = fresh.with_suffix(".old")
    target.rename(old)
    try:
        fresh.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _shareable(adapted: Adapted) -> tuple[dict[str, Any], dict[str, Any]]:
    """The config and the result without the folders of the machine they were made on."""
    config = adapted.config.as_dict()
    for key in named_files.path_keys():
        section, _, name = key.partition(".")
        config[section][name] = named_files.shareable(key, config[section][name])
    result = {k: v for k, v in adapted.result.items() if k != "skipped_images"}  # paths
    return config, result


def _write(adapted: Adapted, out: Path, side: int, bare: bool) -> None:
    """Writes the files of an export to an empty folder."""
    config, result = _shareable(adapted)
    about = {
        "format": FORMAT,
        "versions": adapted.result["versions"] | {"jax": jax.__version__,
                                                  "vprompt_jax": vprompt_jax.__version__},
        "packages": [f"{name}=={importlib.metadata.version(name)}" for name in _NEEDED],
        "class_names": list(adapted.class_names),
        "input_side": side,
        "parameters": "best on val" if adapted.best else "of the last step",
        "platforms": list(PLATFORMS),
        "frozen_sha256": _digest(adapted.adaptation.frozen),
        "result": result,
    }  # fmt: skip
    files: dict[str, bytes] = {}
    if not bare:
        files["model.stablehlo"] = stablehlo(adapted, side)
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
    resize = CLIPConfig.from_json(about["result"]["clip"]).resize
    call = jax.jit(exported.call)
    return Exported(
        about["result"], about["class_names"], about["input_side"], call, weights, resize
    )


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


def load_either(
    run: Path | str, *, best: bool = False, checkpoint: Path | str | None = None
) -> Exported | Adapted:
    """Loads a finished run, or an export of one.

    Args:
      run: folder of the run or the export, or a repository on Hugging Face's hub, "owner/name",
        that holds an export and is downloaded.
      best: a run's parameters best on val, in place of the last step's.
      checkpoint: where the CLIP's weights are now; None for where they were.

    Raises:
      UserError: as `load` and `inference.adapted.load`; or if `best` is asked of an export.
    """
    folder = hub.pull(str(run)) if hub.is_name(run) else Path(run)
    if not is_export(folder):
        return load_run(folder, best=best, checkpoint=checkpoint)
    if best:
        raise UserError(f"{folder} is an export, which holds one set of parameters: omit --best")
    return load(folder, checkpoint=checkpoint)
