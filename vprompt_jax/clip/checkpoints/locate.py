"""From what the user calls a checkpoint to its weights on this machine."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vprompt_jax.clip import vocabularies
from vprompt_jax.clip.checkpoints import formats
from vprompt_jax.process import download
from vprompt_jax.process.environment import is_set
from vprompt_jax.process.errors import UserError
from vprompt_jax.process.paths import cache_folder

ZOO = Path(__file__).parents[2] / "zoo"
# An embedded model has a JSON file that describes it. Its weights are one file, or an index of two
# where models share a text tower.
_EMBEDDED = (".safetensors.index.json", ".safetensors")

# OpenAI's names -> SHA-256 and file name, the two parts of their addresses that differ
# (github.com/openai/CLIP, clip/clip.py).
OPENAI = {
    "RN50": ("afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762", "RN50.pt"),
    "RN101": ("8fa8567bab74a42d41c5915025a8e4538c3bdbe8804a470a72f30b0d94fab599", "RN101.pt"),
    "RN50x4": ("7e526bd135e493cef0776de27d5f42653e6b4c8bf9e0f653bb11773263205fdd", "RN50x4.pt"),
    "RN50x16": ("52378b407f34354e150460fe41077663dd5b39c54cd0bfd2b27167a4a06ec9aa", "RN50x16.pt"),
    "RN50x64": ("be1cfb55d75a9666199fb2206c106743da0f6468c9d327f3e0d0a543a9919d9c", "RN50x64.pt"),
    "ViT-B/32": ("40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af", "ViT-B-32.pt"),
    "ViT-B/16": ("5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f", "ViT-B-16.pt"),
    "ViT-L/14": ("b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836", "ViT-L-14.pt"),
    "ViT-L/14@336px": (
        "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02",
        "ViT-L-14-336px.pt",
    ),
}
OPENAI_FILES = frozenset(name for _, name in OPENAI.values())
# Where they lie, and Hugging Face's repositories; both can be pointed elsewhere, at a mirror.
_OPENAI_URL = "https://openaipublic.azureedge.net/clip/models"
_HUB_URL = "https://huggingface.co"

# Weights in a folder or repository, in the order of preference: no pickles if it can be avoided,
# and transformers' layout before OpenCLIP's, since its config says more.
_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "open_clip_pytorch_model.bin",
)
_CONFIGS = (
    "config.json",
    "open_clip_config.json",
    "processor_config.json",
    "preprocessor_config.json",
)
CARD = "README.md"  # says under which licence the weights are
REPOSITORY = re.compile(r"(?:hf-hub:)?(\w[\w.-]*)/(\w[\w.-]*)(?:@(\w[\w.-]*))?")
_FILE_SUFFIXES = (".pt", ".pth", ".bin", ".safetensors", ".npz", ".json", ".ckpt")


def embedded_models() -> list[str]:
    """Names of the models that come with the package."""
    indices = _EMBEDDED[0]
    return sorted(p.stem for p in ZOO.glob("*.json") if not p.name.endswith(indices))


def locate(
    path_or_name: str | Path,
    *,
    cache_dir: str | Path | None = None,
    offline: bool | None = None,
) -> tuple[Path, dict[str, Any]]:
    """Finds a checkpoint, and downloads it unless that happened before.

    Args:
      path_or_name: as in `load`.
      cache_dir: as in `load`.
      offline: as in `load`.

    Returns:
      The file of weights (or the index of its shards), and the fields of `CLIPConfig` that the
      name tells.

    Raises:
      UserError: if there is no such checkpoint, or it cannot be downloaded.
    """
    name = str(path_or_name)
    path = Path(name).expanduser()
    if path.is_dir():
        return _in_folder(path), {}
    if path.exists():
        return path, {}
    if name in embedded_models():
        weights = next(w for suffix in _EMBEDDED if (w := ZOO / f"{name}{suffix}").is_file())
        return weights, {"activation": "quick_gelu"}
    if offline is None:
        offline = is_set("VPROMPT_OFFLINE")
    cache = cache_folder(cache_dir)
    if name in OPENAI:
        digest, file_name = OPENAI[name]
        base = os.environ.get("VPROMPT_OPENAI_URL") or _OPENAI_URL
        target = cache / "openai" / file_name
        download.fetch(
            f"{base.rstrip('/')}/{digest}/{file_name}", target, sha256=digest, offline=offline
        )
        return target, {"activation": "quick_gelu"}
    match = REPOSITORY.fullmatch(name)
    if match and (name.startswith("hf-hub:") or not name.endswith(_FILE_SUFFIXES)):
        owner, repository, revision = match.groups()
        return _from_hub(owner, repository, revision, cache, offline), {}
    models = ", ".join(embedded_models())
    raise UserError(
        f"no checkpoint {name!r}: give the path of a file or folder, an embedded model ({models}), "
        f"one of OpenAI's ({', '.join(OPENAI)}), or a Hugging Face repository (owner/name)"
    )


def _in_order(folder: Path) -> tuple[str, ...]:
    """Names of weights, the preferred first: OpenCLIP's where transformers' or timm's have no text
    tower."""
    config = folder / "config.json"
    if not (folder / "open_clip_config.json").is_file():
        return _WEIGHTS
    said = formats.read_json(config) if config.is_file() else {}
    whole = {"clip": ["CLIPModel"], "siglip": ["SiglipModel"]}.get(said.get("model_type", ""))
    if whole and said.get("architectures") in (None, whole):
        return _WEIGHTS
    return tuple(sorted(_WEIGHTS, key=lambda name: not name.startswith("open_clip")))


def public_name(path_or_name: str | Path) -> str:
    """A checkpoint's name as others may read it.

    A public name ("ViT-B/32", "owner/name") and an embedded model's stay whole; of a path only the
    last part is left, since its folders are no one else's business.
    """
    name = str(path_or_name)
    path = Path(name).expanduser()
    if path.exists() or path.is_absolute() or name.startswith((".", "~")):
        return path.name
    if name in OPENAI or (REPOSITORY.fullmatch(name) and not name.endswith(_FILE_SUFFIXES)):
        return name
    return path.name


def own_json(weights: Path) -> Path | None:
    """The JSON that this package writes beside weights, "w.json" for "w.safetensors" or its index;
    None if there is none."""
    own = weights.with_name(f"{weights.name.removesuffix('.index.json').rpartition('.')[0]}.json")
    return own if own != weights and own.is_file() else None


def _in_folder(folder: Path) -> Path:
    for file_name in _in_order(folder):
        if (folder / file_name).is_file():
            return folder / file_name
    raise UserError(
        f"{folder} is a folder without weights: expected one of {', '.join(_WEIGHTS)}; give the "
        "path of a file with another name"
    )


def hub_url() -> str:
    """Hugging Face's hub, or the mirror that HF_ENDPOINT names."""
    return (os.environ.get("HF_ENDPOINT") or _HUB_URL).rstrip("/")


def hub_headers() -> dict[str, str]:
    """What a request to the hub carries: the token in HF_TOKEN, if there is one."""
    token = os.environ.get("HF_TOKEN")
    return {"Authorization": f"Bearer {token}"} if token else {}


def _has_tokenizer(folder: Path) -> bool:
    """Whether the configs in a folder say that the texts' tokenizer has files of its own."""
    config, open_clip = folder / "config.json", folder / "open_clip_config.json"
    if config.is_file() and formats.read_json(config).get("model_type") == "siglip":
        return True
    said = formats.read_json(open_clip) if open_clip.is_file() else {}
    for part in ("model_cfg", "text_cfg"):
        said = said.get(part) or {}
    return bool(said.get("hf_tokenizer_name"))


def _from_hub(owner: str, name: str, revision: str | None, cache: Path, offline: bool) -> Path:
    """Weights of a repository, downloaded last, so that their presence means that all is there."""
    revision = revision or "main"
    folder = cache / "hub" / owner / name / revision
    if any((folder / file_name).is_file() for file_name in _WEIGHTS):
        return _in_folder(folder)
    base = hub_url()
    if offline:
        raise UserError(
            f"{owner}/{name} is not in {folder}, and VPROMPT_OFFLINE (or offline=True) forbids to "
            "download it: load it once while connected, or copy its files there"
        )
    headers = hub_headers()

    def fetch(file_name: str, *, to: str | None = None, optional: bool = True) -> bool:
        url = f"{base}/{owner}/{name}/resolve/{revision}/{file_name}"
        check: Callable[[Path], object] | None = formats.read_tensors
        # Read when they are needed; SigLIP 2's vocabulary has 34 MB.
        if file_name in vocabularies.FILES or file_name == CARD:
            check = None
        elif file_name.endswith(".json"):
            check = formats.read_json
        return download.fetch(
            url, folder / (to or file_name), check=check, headers=headers, optional=optional
        )

    for file_name in (*_CONFIGS, CARD):
        fetch(file_name)
    if _has_tokenizer(folder):
        fetch(vocabularies.SETTINGS)
        any(map(fetch, vocabularies.FILES))  # the first that is there
    for file_name in _in_order(folder):
        if not file_name.endswith(".index.json"):
            if fetch(file_name):
                return folder / file_name
        elif fetch(file_name, to=f"{file_name}.partial"):
            index = folder / f"{file_name}.partial"
            for shard in formats.shards(index):
                fetch(shard, optional=False)
            index.rename(folder / file_name)
            return folder / file_name
    raise UserError(
        f"{base}/{owner}/{name} holds no weights this package reads, or does not exist: looked for "
        f"{', '.join(_WEIGHTS)} at revision {revision}; OpenAI's own names are {', '.join(OPENAI)}"
    )
