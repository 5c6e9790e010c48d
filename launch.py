"""Trains what a config file describes: python launch.py --config configs/quickstart.py"""

import sys

from absl import app, flags
from ml_collections import config_flags

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "The experiment: a file of configs/. Override a key by --config.section.key=value."
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of results; default: runs/<config name>-<hash of the config>."
)


def main(argv: list[str]) -> None:
    from vprompt_jax import cli

    if len(argv) > 1:
        sys.exit(f"error: unexpected arguments {argv[1:]}; try --help")
    cli.launch(_CONFIG.value, _WORKDIR.value)


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main)
