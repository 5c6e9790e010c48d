"""The command `vprompt`, and `python -m vprompt_jax`: one verb for everything a user does."""

import importlib
import os
import sys

# Verb: what it does, and the module whose `main` does it.
VERBS = {
    "train": ("trains what a config describes", ""),
    "predict": ("labels images with a finished run", "vprompt_jax.predict.__main__"),
    "evaluate": ("measures a finished run on labelled images", "vprompt_jax.evaluate.__main__"),
    "report": ("makes tables, figures and a page of runs", "vprompt_jax.report.__main__"),
    "export": ("writes a finished run as files to hand on", "vprompt_jax.export.__main__"),
    "data": ("shows what a dataset holds", "vprompt_jax.data.__main__"),
    "clip": ("inspects, converts and tries checkpoints", "vprompt_jax.clip.__main__"),
    "benchmark": ("measures speed, FLOPs and memory", "vprompt_jax.benchmark.__main__"),
    "configs": ("lists the experiments that ship", ""),
}
_TRAIN = """vprompt train NAME|FILE|FOLDER [--workdir DIR] [--config.section.key=value]...

NAME is one of `vprompt configs`; FOLDER holds photographs, a folder per class;
all options: vprompt train --help"""


def usage() -> str:
    """The verbs, a line each."""
    lines = [f"  {verb:<10} {summary}" for verb, (summary, _) in VERBS.items()]
    return "usage: vprompt VERB ...\n\n" + "\n".join(lines) + "\n\nvprompt VERB --help says more"


def main() -> None:
    """Does what the first argument says."""
    from vprompt_jax.process.program import user_errors

    if "_ARGCOMPLETE" in os.environ:  # a shell asks what may follow
        from vprompt_jax.launching import completion

        completion.answer(VERBS)
    with user_errors():
        _run()


def _run() -> None:
    verb, *rest = sys.argv[1:] or [""]
    if verb in ("", "-h", "--help"):
        from vprompt_jax.launching import shipped

        print(f"{usage()}\n\nexperiments for `vprompt train`:\n{shipped.listing()}")
    elif verb == "--version":
        from vprompt_jax import __version__

        print(__version__)
    elif verb == "train":
        _train(rest)
    elif verb == "configs":
        from vprompt_jax.launching import shipped

        print(shipped.listing())
    elif verb in VERBS:
        # The verbs' own messages and argument parsers see what they would see by themselves.
        sys.argv = [f"vprompt {verb}", *rest]
        importlib.import_module(VERBS[verb][1]).main()
    else:
        import difflib

        near = difflib.get_close_matches(verb, VERBS, 1)
        meant = f"; did you mean {near[0]}?" if near else ""
        sys.exit(f"error: no verb {verb!r}{meant}\n{usage()}")


def _train(arguments: list[str]) -> None:
    """A first argument without dashes is the config, or a folder of photographs."""
    from vprompt_jax.launching import command_line

    typed = arguments
    if arguments and not arguments[0].startswith("-"):
        given, rest = arguments[0], arguments[1:]
        folder = [f"--config={command_line.PHOTOGRAPHS}:{given}", "--report"]
        arguments = [*(folder if os.path.isdir(given) else [f"--config={given}"]), *rest]
    command_line.main(["vprompt", "train"], arguments, _TRAIN, typed)


if __name__ == "__main__":
    main()
