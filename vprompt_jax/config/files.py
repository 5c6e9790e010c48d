"""The files and folders that a config names, wherever the command is given."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vprompt_jax.clip.checkpoints.locate import public_name
from vprompt_jax.config.config import Config, flat
from vprompt_jax.config.resolve import resolve
from vprompt_jax.methods import registry


def path_keys() -> list[str]:
    """The keys whose value may be a path."""
    return [name for name, field in registry.all_fields().items() if field.key.names_file]


def named(config: Config) -> dict[str, str]:
    """Absolute paths, by key, of the files and folders that a config names and that exist."""
    values = flat(config.as_dict())
    texts = {key: os.path.expanduser(values[key]) for key in path_keys() if values[key]}
    return {key: os.path.abspath(text) for key, text in texts.items() if Path(text).exists()}


def shareable(key: str, value: Any) -> Any:
    """A config value as others may read it: without the folders of this machine."""
    if not value or key not in path_keys():
        return value
    return public_name(value) if key == "model.checkpoint" else Path(value).absolute().name


def naming(config: Config, files: Mapping[str, str]) -> Config:
    """The config with other paths by key."""
    values = config.as_dict()
    for key, path in files.items():
        section, _, name = key.partition(".")
        values[section][name] = path
    return resolve(values)
