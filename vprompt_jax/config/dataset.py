"""The config of a dataset alone, as the verbs that train nothing name it."""

from collections.abc import Collection, Sequence

from vprompt_jax.config.config import Config
from vprompt_jax.config.resolve import default_config, resolve
from vprompt_jax.config.settings import assign
from vprompt_jax.process.errors import UserError


def of_dataset(
    source: str,
    name: str,
    directory: str,
    more: Sequence[str] = (),
    allowed: Collection[str] | None = None,
) -> Config:
    """The config of which `data` names a dataset.

    Args:
      source, name, directory: `data.source`, `data.name` and `data.dir`.
      more: other keys of `data`, as KEY=VALUE.
      allowed: those that have an effect; None for all.

    Raises:
      UserError: if a key is unknown or not allowed, or has a value of another type.
    """
    config = default_config()
    config.data.source, config.data.name, config.data.dir = source, name, directory
    for item in more:
        key = item.partition("=")[0]
        if key not in config.data:
            raise UserError(f"--set {item}: config.data has no {key!r}")
        if allowed is not None and key not in allowed:
            raise UserError(
                f"--set {item}: it has no effect here; what has: {', '.join(sorted(allowed))}"
            )
        assign(config, f"data.{item}")
    return resolve(config)
