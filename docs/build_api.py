"""Writes pages of the API from the docstrings: python docs/build_api.py [FOLDER].

The default folder is docs/api.

pdoc's own command documents only what a package's `__all__` names; this documents every module.
"""

import importlib
import pkgutil
import sys
import warnings
from pathlib import Path

import pdoc

import vprompt_jax


def modules() -> list[str]:
    """Every importable module of the package but the programs' `__main__`."""
    names = [vprompt_jax.__name__]
    for info in pkgutil.walk_packages(vprompt_jax.__path__, "vprompt_jax."):
        importlib.import_module(info.name)
        if not info.name.endswith("__main__"):
            names.append(info.name)
    return names


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "api"
    # Names that the package imports at their first use are there for pdoc to find.
    for name in vprompt_jax.__all__:
        setattr(vprompt_jax, name, getattr(vprompt_jax, name))
    pdoc.render.configure(docformat="google")
    # A package without `__all__` brings its modules itself, so that they are named twice.
    warnings.filterwarnings("ignore", message="The module specification")
    pdoc.pdoc(*modules(), output_directory=folder)


if __name__ == "__main__":
    main()
