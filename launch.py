"""Trains what a config file describes: python launch.py --config configs/quickstart.py"""

import ast
import difflib
import os
import re
import sys
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

_CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "The experiment: a file of configs/, or the config.json of a run. Change a value by "
    "--config.section.key=value; docs/config.md says what each key means.",
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
_ROOT = Path(__file__).resolve().parent
_USAGE = """usage: python launch.py --config FILE [--workdir DIR] [--config.section.key=value]...

config files:
{}
all options: python launch.py --help"""


def _shipped() -> dict[str, str]:
    """The first line of every config file's docstring, by the file's path."""
    trees = {path: ast.parse(path.read_text()) for path in (_ROOT / "configs").rglob("*.py")}
    return {
        os.path.relpath(path): (ast.get_docstring(tree) or "").partition("\n")[0]
        for path, tree in sorted(trees.items())
        if any(isinstance(f, ast.FunctionDef) and f.name == "get_config" for f in tree.body)
    }


def _usage() -> str:
    shipped = _shipped()
    width = max(map(len, shipped), default=0)
    return _USAGE.format("\n".join(f"  {name:<{width}}  {line}" for name, line in shipped.items()))


def _checked(argv: list[str]) -> list[str]:
    """The arguments with a config file that exists; a run's config.json becomes a config file."""
    names = [i for i, a in enumerate(argv) if re.fullmatch(r"--?config(=.*)?", a, re.DOTALL)]
    if not names or set(argv) & {"--help", "-help", "--helpfull", "-h", "-?", "--helpshort"}:
        return argv
    joined = "=" in argv[names[-1]]
    at = names[-1] if joined else names[-1] + 1
    if at >= len(argv):
        sys.exit(f"error: --config needs a file\n{_usage()}")
    value = argv[at].partition("=")[2] if joined else argv[at]
    path = value.partition(":")[0]
    if not Path(path).is_file():
        shipped = list(_shipped())
        near = difflib.get_close_matches(path, shipped, 3, 0.5)
        stem = Path(path).stem
        near += [n for n in shipped if difflib.get_close_matches(stem, [Path(n).stem], 1, 0.6)]
        meant = ", ".join(list(dict.fromkeys(near))[:3])
        sys.exit(f"error: no config file {path!r}" + (
            f"; did you mean {meant}?" if meant else "; python launch.py lists those there are"
        ))  # fmt: skip
    if path.endswith(".json"):
        value = f"{_ROOT / 'vprompt_jax' / 'launching' / 'stored.py'}:{value}"
        return [*argv[:at], f"--config={value}" if joined else value, *argv[at + 1 :]]
    return argv


def _parse_flags(argv: list[str]) -> list[str]:
    """Parses flags; a key or a file that does not exist is one message, not a traceback."""
    if len(argv) == 1:
        sys.exit(_usage())
    argv = _checked(argv)
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        lines = str(error).strip().splitlines()
        if "Traceback (most recent call last):" in lines:  # of the config file
            sys.exit(f"error: cannot load the config: {lines[-1]}")
        sys.exit(f"error: {' '.join(lines)}; python launch.py --help lists the options")
    except (AttributeError, KeyError) as error:
        _refuse_unknown_keys(argv)
        sys.exit(_unloadable(error))
    except Exception as error:  # a config is a program: whatever is wrong with it
        sys.exit(_unloadable(error))


def _refuse_unknown_keys(argv: list[str]) -> None:
    """Ends the program with the keys nearest to an override's that does not exist, if one is so."""
    from vprompt_jax.config.resolve import nearest
    from vprompt_jax.methods import registry

    known = list(registry.all_fields())
    for argument in argv:
        key = argument.split("=")[0].removeprefix("--config.")
        if argument.startswith("--config.") and key not in [*known, "sweep"]:
            near = nearest(key, known)
            meant = f"did you mean {near}?" if near else "docs/config.md lists the keys"
            sys.exit(f"error: unknown config key --config.{key}; {meant}")


def _unloadable(error: Exception) -> str:
    from vprompt_jax.process.failures import shows_traceback

    if shows_traceback():
        raise error
    return f"error: cannot load the config: {type(error).__name__}: {' '.join(str(error).split())}"


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        sys.exit(f"error: unexpected arguments {' '.join(argv[1:])}; see --help")
    if _CONFIG.value is None:
        sys.exit(f"error: --config is missing\n{_usage()}")
    try:
        config = _CONFIG.value
        config.name  # noqa: B018 - a file that could not be loaded raises when it is used
    except Exception as error:
        sys.exit(_unloadable(error))
    from vprompt_jax.launching import launch

    if _PRINT.value:
        launch.print_commands(config, sys.argv)
    else:
        overridden = config_flags.get_override_values(flags.FLAGS["config"])
        launch.launch(config, _WORKDIR.value, _RUN.value, list(overridden))


if __name__ == "__main__":
    try:
        app.run(main, flags_parser=_parse_flags)
    except KeyboardInterrupt:  # while modules are imported
        sys.exit(130)
