"""The command line of launch.py and `vprompt train`: flags, and what is said of mistaken ones."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

from vprompt_jax.launching import shipped

PHOTOGRAPHS = str(Path(__file__).parent / "photographs.py")  # the config file of a folder
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
_CLIP = flags.DEFINE_string("clip", None, "Short for --config.model.checkpoint.")
_REPORT = flags.DEFINE_bool(
    "report", False, "Of a single run: also write its report, into report/ of its folder."
)
_DRY = flags.DEFINE_bool(
    "dry_run", False, "Say what one run would take (steps, downloads, time, memory), and stop."
)
_HELP = {"--help", "-help", "--helpfull", "-h", "-?", "--helpshort"}


def main(
    program: Sequence[str],
    arguments: Sequence[str],
    usage: str,
    typed: Sequence[str] | None = None,
) -> None:
    """Trains what the arguments describe, and ends the program with its exit status.

    Args:
      program: how the user called this program, without its arguments.
      arguments: --config names the experiment.
      usage: shown if there are none.
      typed: the arguments as the user gave them, for the commands that are printed; None for
        `arguments`.
    """
    command = [*program, *(arguments if typed is None else typed)]

    def parse(argv: list[str]) -> list[str]:
        return _parse_flags(argv, usage)

    def train(argv: list[str]) -> None:
        _train(argv, command, usage)

    shipped.make_importable()
    try:
        app.run(train, argv=[" ".join(program), *arguments], flags_parser=parse)
    except KeyboardInterrupt:  # while modules are imported
        sys.exit(130)


def _usage(usage: str) -> str:
    return f"usage: {usage}\n\nconfig files:\n{shipped.listing()}"


def _checked(argv: list[str], usage: str) -> list[str]:
    """The arguments with a config file that exists; a run's config.json becomes a config file."""
    names = [i for i, a in enumerate(argv) if re.fullmatch(r"--?config(=.*)?", a, re.DOTALL)]
    if not names:
        return argv
    joined = "=" in argv[names[-1]]
    at = names[-1] if joined else names[-1] + 1
    if at >= len(argv):
        sys.exit(f"error: --config needs a file\n{_usage(usage)}")
    value = argv[at].partition("=")[2] if joined else argv[at]
    path, colon, variant = value.partition(":")
    if not Path(path).is_file():
        known = shipped.find(path)
        if known is None:
            near = shipped.nearest(path)
            meant = f"; did you mean {', '.join(near)}?" if near else (
                "; without arguments, this command lists those there are"
            )  # fmt: skip
            wanted = "config file or folder" if argv[0].startswith("vprompt") else "config file"
            sys.exit(f"error: no {wanted} {path!r}{meant}")
        value = f"{known}{colon}{variant}"
    if path.endswith(".json"):
        value = f"{Path(__file__).parent / 'stored.py'}:{value}"
    return [*argv[:at], f"--config={value}" if joined else value, *argv[at + 1 :]]


def _parse_flags(argv: list[str], usage: str) -> list[str]:
    """Parses flags; a key or a file that does not exist is one message, not a traceback."""
    if len(argv) == 1:
        sys.exit(_usage(usage))
    if set(argv) & _HELP:
        print(f"usage: {usage}\n{flags.FLAGS.module_help(__name__)}")
        sys.exit(0)
    argv = _checked(argv, usage)
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        _refuse_sections(argv)
        lines = str(error).strip().splitlines()
        if "Traceback (most recent call last):" in lines:  # of the config file
            sys.exit(f"error: cannot load the config: {lines[-1]}")
        sys.exit(f"error: {' '.join(lines)}; {argv[0]} --help lists the options")
    except (AttributeError, KeyError) as error:
        _refuse_unknown_keys(argv)
        sys.exit(_unloadable(error))
    except Exception as error:  # a config is a program: whatever is wrong with it
        sys.exit(_unloadable(error))


def _refuse_sections(argv: list[str]) -> None:
    """Ends the program with the keys of a section, if an override gives the section a value."""
    from vprompt_jax.methods import registry

    for argument in argv:
        name, _, value = argument.removeprefix("--config.").partition("=")
        keys = [k for k in registry.all_fields() if k.startswith(f"{name}.")]
        if argument.startswith("--config.") and keys:
            chosen = [k for k in (f"{name}.name", f"{name}.kind") if k in keys]
            wanted = f"did you mean --config.{chosen[0]}={value or '...'}?" if chosen else (
                f"set one of its keys: {', '.join(keys)}"
            )  # fmt: skip
            sys.exit(f"error: config.{name} is a section; {wanted}")


def _refuse_unknown_keys(argv: list[str]) -> None:
    """Ends the program with the keys nearest to an override's that does not exist, if one is so."""
    from vprompt_jax.config.resolve import SEARCH, nearest
    from vprompt_jax.methods import registry

    known = [*registry.all_fields(), *(f"search.{key}" for key in SEARCH)]
    for argument in argv:
        key = argument.split("=")[0].removeprefix("--config.")
        if argument.startswith("--config.") and key not in [*known, "sweep"]:
            near = nearest(key, known)
            meant = f"did you mean {near}?" if near else "docs/config.md lists the keys"
            sys.exit(f"error: unknown config key --config.{key}; {meant}")


def _unloadable(error: Exception) -> str:
    from vprompt_jax.process.errors import UserError
    from vprompt_jax.process.failures import shows_traceback

    if shows_traceback():
        raise error
    if isinstance(error, UserError):
        return f"error: {error}"
    return f"error: cannot load the config: {type(error).__name__}: {' '.join(str(error).split())}"


def _train(argv: list[str], command: list[str], usage: str) -> None:
    if len(argv) > 1:
        sys.exit(f"error: unexpected arguments {' '.join(argv[1:])}; see --help")
    if _CONFIG.value is None:
        sys.exit(f"error: --config is missing\n{_usage(usage)}")
    try:
        config = _CONFIG.value
        config.name  # noqa: B018 - a file that could not be loaded raises when it is used
    except Exception as error:
        sys.exit(_unloadable(error))
    from vprompt_jax.launching import launch

    overridden = list(config_flags.get_override_values(flags.FLAGS["config"]))
    if _CLIP.value is not None:
        config.model.checkpoint = _CLIP.value
        overridden.append("model.checkpoint")
    if _PRINT.value:
        launch.print_commands(config, command)
    elif _DRY.value:
        launch.preview(config, _RUN.value, overridden)
    else:
        launch.launch(config, _WORKDIR.value, _RUN.value, overridden, command, report=_REPORT.value)
