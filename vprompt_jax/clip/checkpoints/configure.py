"""Decides the architecture that a checkpoint is for, from shapes, files beside it, and the user."""

import dataclasses
import zipfile
from pathlib import Path
from typing import Any

import jax

from vprompt_jax.clip.checkpoints import formats, locate, openai
from vprompt_jax.clip.checkpoints.family import Beside, Family
from vprompt_jax.clip.checkpoints.formats import Tensors
from vprompt_jax.clip.checkpoints.vocabularies import tokenizer_fields
from vprompt_jax.clip.config import ACTIVATIONS, CLIPConfig, Fields, dotted
from vprompt_jax.clip.resnet_config import ResNetConfig
from vprompt_jax.clip.towers import ViTConfig
from vprompt_jax.process.errors import UserError

# Fields that would have a default, but must come from the checkpoint or from the user: a wrong
# one gives another function of the same weights.
_MUST_BE_TOLD = ("vision_heads", "text_heads", "activation", "mean", "std")
_LARGEST = 2**22  # of a config's numbers: channels, pixels, the size of a vocabulary


def configure(
    path: Path,
    family: Family,
    tensors: Tensors,
    open_clip: bool,
    told_by_name: Fields,
    given: Fields,
) -> tuple[CLIPConfig, str]:
    """Decides the architecture.

    What the user passed comes before what the checkpoint's name says, and that before the files
    beside the weights and the tensors' shapes.

    Args:
      path: of the weights.
      family: their layout.
      tensors: by the family's names.
      open_clip: OpenAI published no such file, so OpenCLIP wrote it if it has their layout.
      told_by_name: fields that the checkpoint's public name implies.
      given: fields that the user passed.

    Returns:
      The architecture, and a notice of what was assumed; "" if nothing was.

    Raises:
      UserError: if a key or value is not supported, or something that has no safe default is said
        nowhere.
    """
    if own := locate.own_json(path):
        return _own_config(own, given), ""

    def neighbour(name: str) -> dict[str, Any]:
        file = path.parent / name
        return formats.read_json(file) if file.is_file() else {}

    preprocessor_file = "processor_config.json"
    preprocessor = neighbour(preprocessor_file).get("image_processor")
    if preprocessor is None:
        preprocessor_file = "preprocessor_config.json"
        preprocessor = neighbour(preprocessor_file)
    configs = Beside(
        neighbour("config.json"),
        neighbour("open_clip_config.json"),
        preprocessor,
        preprocessor_file,
        f"{path.parent.name}/{path.name}",
        path.parent,
    )
    told = family.configure(tensors, configs)
    notice = str(told.pop("notice", ""))
    towers = ViTConfig if told["vision.kind"] == "vit" else ResNetConfig, "text.width" in told
    try:
        told |= dotted(told_by_name, *towers) | dotted(given, *towers)
    except ValueError as error:
        raise UserError(str(error)) from error
    if family is openai.FAMILY and "text.activation" not in told:
        implied = openai.activation_of(path.name)
        if implied is not None:
            told = dotted({"activation": implied}, *towers) | told
        elif open_clip:  # neither the activation nor the heads are OpenAI's
            open_fields = {"vision.heads", "text.heads"} - dotted(given, *towers).keys()
            told = {name: value for name, value in told.items() if name not in open_fields}
        elif _is_openais(path):
            told = dotted({"activation": "quick_gelu"}, *towers) | told
            notice = (
                f"{path.name} has OpenAI's names and no config beside it: loaded with QuickGELU "
                "(pass activation='gelu' if it was trained with exact GELU)."
            )
    if missing := _missing(told, *towers):
        files = "config.json (and preprocessor_config.json)"
        if family is openai.FAMILY:
            files = "open_clip_config.json"
        passed = ", ".join(f"{field!r}: ..." for field in missing)
        choices = f" (activation: {', '.join(ACTIVATIONS)})" if "activation" in missing else ""
        raise UserError(
            f"neither the weights nor a config beside them say {', '.join(missing)}: put the "
            f"{files} they were published with beside them, or pass fields={{{passed}}}{choices}, "
            f"which is --set {missing[0]}=... for vprompt clip convert"
        )
    try:
        return CLIPConfig.from_fields(told), notice
    except (TypeError, ValueError) as error:
        raise UserError(str(error)) from error


def _own_config(path: Path, given: Fields) -> CLIPConfig:
    """The architecture in the JSON that this package writes beside weights."""
    try:
        config = CLIPConfig.from_json(formats.read_json(path)["clip"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} does not describe a CLIP ({error!r})") from error
    try:
        if config.text is not None and config.text.tokenizer is None:
            # It was not known when this was written; its files may be here now.
            config = config.with_fields(tokenizer_fields(path.parent))
        return config.with_fields(given)
    except (TypeError, ValueError) as error:
        raise UserError(str(error)) from error


def _is_openais(path: Path) -> bool:
    """Whether a file of OpenAI's layout is OpenAI's: by its name, or because it is the TorchScript
    archive that OpenAI published; others write state dicts of the same names and shapes."""
    if "openai" in path.name.lower() or path.name in locate.OPENAI_FILES:
        return True
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def _missing(told: Fields, vision: type, has_text: bool) -> list[str]:
    """What must be told and is not, by users' names."""
    missing = []
    for name in _MUST_BE_TOLD:
        try:
            fields = dotted({name: None}, vision, has_text)
        except ValueError:  # no tower has this
            continue
        if not fields.keys() <= told.keys():
            missing.append(name)
    return missing


def check_size(config: CLIPConfig, tensors: Tensors) -> None:
    """Refuses an architecture that would take long to build and cannot be that of the weights."""
    for field, value in jax.tree_util.tree_leaves_with_path(dataclasses.asdict(config)):
        name = jax.tree_util.keystr(field)
        blocks = "layers" in name or "blocks" in name
        most = len(tensors) if blocks else _LARGEST
        if isinstance(value, int) and not 0 <= value <= most:
            raise UserError(f"config{name} is {value:,}, which no tower with these weights has")
