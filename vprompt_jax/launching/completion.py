"""What may follow a half-typed `vprompt` command, for shells (argcomplete)."""

import argparse
import importlib
import os
from collections.abc import Mapping

import argcomplete
from absl import flags
from argcomplete.completers import FilesCompleter

from vprompt_jax.launching import command_line, shipped


def answer(verbs: Mapping[str, tuple[str, str]]) -> None:
    """Tells the shell what may follow, and ends the program.

    Args:
      verbs: `vprompt`'s, with the module whose `parser` knows a verb's arguments.
    """
    line = os.environ["COMP_LINE"][: int(os.environ["COMP_POINT"])]
    words = line.split()
    last = "" if line.endswith(" ") else words.pop()
    if len(words) < 2:
        parser = argparse.ArgumentParser("vprompt")
        parser.add_argument("verb", choices=list(verbs))
    else:
        verb = words[1]
        module = verbs.get(verb, ("", ""))[1]
        if module:
            parser = importlib.import_module(module).parser()
        else:
            parser = _train(last) if verb == "train" else argparse.ArgumentParser("vprompt")
        # The words before this one are the program.
        os.environ["_ARGCOMPLETE"] = str(int(os.environ["_ARGCOMPLETE"]) + 1)
    argcomplete.autocomplete(parser, always_complete_options="long")


def _train(last: str) -> argparse.ArgumentParser:
    """The arguments of `vprompt train`, as far as the last word can become one of them."""
    parser = argparse.ArgumentParser("vprompt train", add_help=False)
    config = parser.add_argument("config", nargs="?")
    config.completer = _configs  # type: ignore[attr-defined]
    for flag in flags.FLAGS.get_flags_for_module(command_line.__name__):
        parser.add_argument(f"--{flag.name}")
    parser.add_argument("--help")
    if last.startswith("--config"):
        from vprompt_jax.methods import registry

        for key, field in registry.all_fields().items():
            parser.add_argument(f"--config.{key}", choices=field.choices or None)
    return parser


def _configs(prefix: str, **_: object) -> list[str]:
    """The experiments that ship, files and folders."""
    files = FilesCompleter(["py", "json"])(prefix)
    return [*map(shipped.name_of, shipped.summaries()), *files]
