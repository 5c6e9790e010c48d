"""A config file that takes the values of a run's config.json: stored.py:run/config.json"""

from pathlib import Path

from ml_collections import ConfigDict

from vprompt_jax.config import default_config
from vprompt_jax.config.config import flat
from vprompt_jax.process.files import read_json


def get_config(path: str) -> ConfigDict:
    """The config of a run, every value as that run had it.

    Args:
      path: of a `config.json`.

    Raises:
      UserError: if the file is damaged.
      KeyError, TypeError: if it holds other keys or types than a config does.
    """
    config = default_config()
    values = flat(read_json(Path(path), "name the config file that the run was started with"))
    lists = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
    config.update_from_flattened_dict(values | lists)
    return config
