"""Links of the Markdown files lead somewhere, and the commands they show name what exists."""

import re

import pytest

from tests.conftest import ROOT

FILES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


def slug(heading: str) -> str:
    """A heading's anchor, as GitHub makes it."""
    text = re.sub(r"[`*_]", "", heading.strip().lower())
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def broken_links(text: str, folder, anchors: set[str]) -> list[str]:
    """Relative links to no file, and anchors to no heading."""
    prose = re.sub(r"```.*?```", "", text, flags=re.S)
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        path, _, anchor = target.partition("#")
        if re.match(r"(https?|mailto):", target):
            continue
        if (path and not (folder / path).exists()) or (not path and anchor not in anchors):
            broken.append(target)
    return broken


def test_the_checker_finds_what_is_broken(tmp_path):
    (tmp_path / "there.md").write_text("")
    text = "# A `b` c\n[x](there.md) [y](gone.md) [z](#a-b-c) [w](#none) [h](https://a.b)"
    assert broken_links(text, tmp_path, {slug("A `b` c")}) == ["gone.md", "#none"]


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_links_lead_somewhere(path):
    text = path.read_text()
    anchors = {slug(h) for h in re.findall(r"^#+ (.*)$", text, re.M)}
    assert broken_links(text, path.parent, anchors) == []


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_configs_and_modules_of_commands_exist(path):
    text = path.read_text()
    for config in re.findall(r"configs/[\w/]+\.py", text):
        assert (ROOT / config).is_file(), config
    for module in re.findall(r"python3? -m (vprompt_jax[\w.]*)", text):
        file = ROOT / module.replace(".", "/")
        assert file.with_suffix(".py").is_file() or (file / "__main__.py").is_file(), module


def test_the_table_of_sweeps_counts_their_runs():
    import importlib

    text = (ROOT / "docs" / "results.md").read_text()
    rows = re.findall(r"^\| `(\w+)\.py` \|.*\| (\d+) \| (\d+) \|$", text, re.M)
    files = {p.stem for p in (ROOT / "configs" / "sweeps").glob("*.py")} - {"common"}
    assert {name for name, _, _ in rows} == files
    for name, paper, mini in rows:
        get_config = importlib.import_module(f"configs.sweeps.{name}").get_config
        assert [len(get_config(v).sweep) for v in ("paper", "mini")] == [int(paper), int(mini)]
