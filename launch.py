"""Trains what a config file describes: python launch.py --config configs/quickstart.py"""

import re
import sys

from absl import app, flags
from ml_collections import config_flags

_CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "The experiment: a file of configs/. Change a value by --config.section.key=value; "
    "docs/config.md says what each key means.",
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of results; default: runs/<config name>-<hash of the config>."
)
_RUN = flags.DEFINE_string(
    "run", None, "Of a sweep: only the run of this name, or number from 0, and no report."
)
_PRINT = flags.DEFINE_bool(
    "print_commands", False, "Of a sweep: print a command per run, for a scheduler, and stop."
)


def _parse_flags(argv: list[str]) -> list[str]:
    """Parses flags; an override of a key that does not exist is one message, not a traceback."""
    try:
        return app.parse_flags_with_usage(argv)
    except (AttributeError, KeyError) as error:
        text = str(error).replace("\\n", "\n").replace("\\'", "'")
        unknown = re.search(r"\w+", re.sub(r"^\W*(Key\W+)?", "", text))[0]
        given = [a.split("=")[0] for a in argv if unknown in a.split("=")[0].split(".")]
        meant = re.search(r"Did you mean.*\?", text)
        where = " ".join(given) or f"{unknown!r} in the config file"
        sys.exit(f"error: unknown config key {where}. {meant[0] if meant else ''}".rstrip())


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        sys.exit(f"error: unexpected arguments {' '.join(argv[1:])}; see --help")
    try:
        config = _CONFIG.value
        config.name  # noqa: B018 - a file that could not be loaded raises when it is used
    except Exception as error:  # a config is a program: whatever is wrong with it
        sys.exit(f"error: cannot load the config: {type(error).__name__}: {error}")
    from vprompt_jax.launching import launch

    if _PRINT.value:
        launch.print_commands(config, sys.argv)
    else:
        overridden = config_flags.get_override_values(flags.FLAGS["config"])
        launch.launch(config, _WORKDIR.value, _RUN.value, list(overridden))


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main, flags_parser=_parse_flags)
