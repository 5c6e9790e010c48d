"""Exports on Hugging Face's hub: pushed with its own library, pulled file by file."""

import os
from pathlib import Path

from vprompt_jax.clip.checkpoints.locate import REPOSITORY, hub_headers, hub_url
from vprompt_jax.process import download
from vprompt_jax.process.environment import is_set
from vprompt_jax.process.errors import UserError
from vprompt_jax.process.paths import cache_folder

# The first says what the export is; weights come last. A bare export lacks the optional ones.
_FILES = ("export.json", "config.json", "README.md", "adaptation.safetensors")
_OPTIONAL = ("weights.safetensors", "model.stablehlo")


def is_name(text: str | os.PathLike[str]) -> bool:
    """Whether a text names a repository of the hub: "owner/name" or "owner/name@revision".

    A path in a folder that is there ("runs/mistyped") names none.
    """
    name = os.fspath(text)
    return bool(REPOSITORY.fullmatch(name)) and not os.path.exists(os.path.dirname(name))


def pull(name: str) -> Path:
    """Downloads an export, unless that happened before.

    Args:
      name: of the repository: "owner/name", or "owner/name@revision".

    Returns:
      The export's folder.

    Raises:
      UserError: if there is no such repository, it holds no export, or it cannot be downloaded.
    """
    match = REPOSITORY.fullmatch(name)
    if match is None:
        raise UserError(f"{name!r} is no repository: a name is owner/name, or owner/name@revision")
    owner, repository, revision = match.groups()
    folder = cache_folder() / "exports" / owner / repository / (revision or "main")
    headers = hub_headers()
    offline = is_set("VPROMPT_OFFLINE")
    for file in (*_FILES, *_OPTIONAL):
        url = f"{hub_url()}/{owner}/{repository}/resolve/{revision or 'main'}/{file}"
        optional = file in _OPTIONAL
        if optional and offline:
            continue
        there = download.fetch(url, folder / file, headers=headers, offline=offline, optional=True)
        if not there and not optional:
            raise UserError(
                f"{hub_url()}/{owner}/{repository} holds no export (no {file}), or does not "
                "exist: give the name of a repository that vprompt export --push wrote, or a folder"
            )
    return folder


def push(folder: Path, name: str) -> str:
    """Uploads an export's folder to a repository, which is made if need be.

    The token is that of `hf auth login`, or HF_TOKEN.

    Args:
      folder: of the export.
      name: of the repository, "owner/name".

    Returns:
      The repository's address.

    Raises:
      UserError: if the hub refuses, or cannot be reached.
    """
    import huggingface_hub

    if not REPOSITORY.fullmatch(name) or "@" in name:
        raise UserError(f"--push {name}: a repository's name is owner/name")
    api = huggingface_hub.HfApi(endpoint=hub_url())
    try:
        url = api.create_repo(name, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, commit_message="vprompt export")
    except Exception as error:  # of its transport, which differs between versions
        text = " ".join(f"{error} {error.__cause__ or ''}".split())
        raise UserError(
            f"cannot push to {hub_url()}/{name}: {text}. Log in by `hf auth login` (or set "
            "HF_TOKEN) with a token that may write there"
        ) from error
    return str(url)
