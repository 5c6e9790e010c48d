"""Keys of a config as the options of a command give them: KEY=VALUE."""

import ast
from typing import Any

from ml_collections import ConfigDict

from vprompt_jax.process.errors import UserError


def assign(config: ConfigDict, setting: str) -> None:
    """Sets one key.

    Args:
      config: changed here.
      setting: "SECTION.KEY=VALUE"; the value as in Python, but that texts need no quotes.

    Raises:
      UserError: if there is no such key, or the value is of another type.
    """
    name, equals, text = setting.partition("=")
    section, _, key = name.rpartition(".")
    parent: Any = config.get(section) if section else config
    if not equals or not isinstance(parent, ConfigDict) or key not in parent:
        raise UserError(
            f"--set {setting}: expected SECTION.KEY=VALUE, with a key of docs/config.md"
        )
    value: Any = text
    if parent.get_type(key) is not str:
        try:
            value = ast.literal_eval(text)
        except (SyntaxError, ValueError) as error:
            raise UserError(f"--set {setting}: {text!r} is no value of {name}") from error
    try:
        parent[key] = value
    except (TypeError, ValueError) as error:
        raise UserError(f"--set {setting}: {error}") from error
