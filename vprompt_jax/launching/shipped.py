"""The config files that come with the package: configs/ of a checkout, or its copy in a wheel."""

import ast
import difflib
import os
import sys
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def root() -> Path:
    """The folder that holds `configs/`."""
    installed = _PACKAGE / "shipped"
    return installed if (installed / "configs").is_dir() else _PACKAGE.parent


def make_importable() -> None:
    """Lets config files import each other (`from configs import quickstart`)."""
    if str(root()) not in sys.path:
        sys.path.insert(0, str(root()))


def summaries() -> dict[Path, str]:
    """The first line of every config file's docstring, by the file's path."""
    paths = sorted((root() / "configs").rglob("*.py"))
    trees = {path: ast.parse(path.read_text()) for path in paths}
    return {
        path: (ast.get_docstring(tree) or "").partition("\n")[0]
        for path, tree in trees.items()
        if any(isinstance(f, ast.FunctionDef) and f.name == "get_config" for f in tree.body)
    }


def name_of(path: Path) -> str:
    """What a user calls a config that ships: "quickstart", "sweeps/adavipro_t4"."""
    return path.relative_to(root() / "configs").with_suffix("").as_posix()


def find(name: str) -> Path | None:
    """The config that ships under a name, with or without its folder and ".py"."""
    wanted = name.removesuffix(".py").removeprefix("configs/")
    for path in summaries():
        if wanted in (name_of(path), path.stem):
            return path
    return None


def nearest(name: str) -> list[str]:
    """Up to three config files that a user may have meant by a path or name."""
    shown = [_shown(path) for path in summaries()]
    near = difflib.get_close_matches(name, shown, 3, 0.5)
    stem = Path(name).stem
    near += [n for n in shown if difflib.get_close_matches(stem, [Path(n).stem], 1, 0.6)]
    return list(dict.fromkeys(near))[:3]


def listing() -> str:
    """A line per config, for the terminal."""
    shown = {_shown(path): line for path, line in summaries().items()}
    width = max(map(len, shown), default=0)
    return "\n".join(f"  {name:<{width}}  {line}" for name, line in shown.items())


def _shown(path: Path) -> str:
    """A path from here, in a checkout; elsewhere the name."""
    inside = path.is_relative_to(Path.cwd())
    return os.path.relpath(path) if inside else name_of(path)
