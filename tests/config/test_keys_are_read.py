"""Every key of a config is read: no option is dead."""

import ast
import dataclasses
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT
from vprompt_jax.methods import registry
from vprompt_jax.schema.sections import SECTIONS, RootSection


@dataclasses.dataclass(frozen=True)
class Declared:
    """A section's class as the sources show it.

    Attributes:
      bases: names of its base classes.
      path: of its file.
      node: the class.
      fields: the keys that it declares itself, by name.
    """

    bases: list[str]
    path: Path
    node: ast.ClassDef
    fields: dict[str, ast.AnnAssign]


def declared_sections(package: Path) -> dict[str, Declared]:
    """All classes of a package that come from `Section`, by name."""
    classes = {}
    for path in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
                # A field with a value is a key; `Config` has others, which hold the sections.
                fields = {
                    f.target.id: f for f in node.body if isinstance(f, ast.AnnAssign) and f.value
                }
                classes.setdefault(node.name, Declared(bases, path, node, fields))
    names = {"Section"}
    while more := {n for n, c in classes.items() if names & set(c.bases)} - names:
        names |= more
    return {name: classes[name] for name in names}


def remove_keys(sections: dict[str, Declared]) -> None:
    """Takes the keys out of the sources; every other line keeps its number."""
    for path in {section.path for section in sections.values()}:
        lines = path.read_text().splitlines()
        for section in sections.values():
            for field in section.fields.values() if section.path == path else ():
                for number in range(field.lineno, field.end_lineno + 1):
                    lines[number - 1] = ""
        path.write_text("\n".join(lines) + "\n")


def missing_attributes(folder: Path) -> set[tuple[str, str, Path, int]]:
    """What mypy misses in `folder`/vprompt_jax: (class, attribute, file, line)."""
    # Functions without annotations are looked into, too. Other packages are left out: mypy knows a
    # section without them, in seconds rather than minutes.
    (folder / "mypy.ini").write_text(
        "[mypy]\nignore_missing_imports = True\ncheck_untyped_defs = True\nfollow_imports = skip\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "vprompt_jax"],
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    message = r'^(.+?):(\d+): error: (?:Item )?"(\w+)"(?: of ".*?")? has no attribute "(\w+)"'
    return {
        (owner, attribute, folder / path, int(line))
        for path, line, owner, attribute in re.findall(message, done.stdout, re.M)
    }


def unread_keys(folder: Path) -> set[str]:
    """Keys ("Class.key") without a reader in a copy of the package, which loses its keys here."""
    sections = declared_sections(folder / "vprompt_jax")
    remove_keys(sections)
    missing = missing_attributes(folder)

    def ancestors(name: str) -> set[str]:
        above = {base for base in sections[name].bases if base in sections}
        return above.union(*map(ancestors, above))

    def is_read(name: str, key: str) -> bool:
        # Code that serves all parts reads the key of a common base; `Config` extends the root's
        # section.
        owners = {name} | {other for other in sections if name in ancestors(other)}
        owners |= {base for base in ancestors(name) if key in sections[base].fields}
        own = sections[name]
        inside = range(own.node.lineno, own.node.end_lineno + 1)
        return any(
            owner in owners and attribute == key and not (path == own.path and line in inside)
            for owner, attribute, path, line in missing
        )

    return {
        f"{name}.{key}"
        for name, section in sections.items()
        for key in section.fields
        if not is_read(name, key)
    }


def test_every_key_is_read_somewhere(tmp_path):
    """Where a key is read, mypy misses it once the key is gone."""
    package = tmp_path / "vprompt_jax"
    shutil.copytree(ROOT / "vprompt_jax", package, ignore=shutil.ignore_patterns("__pycache__"))
    # Keys that nothing reads must be found out, in a part's section and in a base section.
    for name, neighbour in (
        ("prompts/adavipro.py", "    temperature_min: float = key("),
        ("schema/sections.py", "    max_bad_steps: int = key("),
    ):
        text = (package / name).read_text()
        assert text.count(neighbour) == 1
        unread = f'    never_read: int = key(0, "")\n{neighbour}'
        (package / name).write_text(text.replace(neighbour, unread))
    # The sources show the keys that a config has.
    declared = declared_sections(package)
    sections = [RootSection, *SECTIONS.values(), *(part.section for part in registry.PARTS)]
    assert {section.__name__ for section in sections} < set(declared)
    for section in sections:
        names = {field.name for field in dataclasses.fields(section)}
        shown = set(declared[section.__name__].fields) - {"never_read"}
        assert shown == names & set(section.__annotations__), section
    # A part's switch is read by its name, `Part.switch`, before there is a section.
    switches = {f"{part.section.__name__}.{part.switch}" for part in registry.PARTS}
    never_read = {"MaskSection.never_read", "OptimSection.never_read"}
    assert unread_keys(tmp_path) - switches == never_read
