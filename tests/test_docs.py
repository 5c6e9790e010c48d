"""Links of the Markdown files lead somewhere; the commands, files and lines they show work."""

import importlib
import re
from pathlib import Path

import pytest

from tests.conftest import ROOT
from vprompt_jax.__main__ import VERBS
from vprompt_jax.config import resolve, sweep
from vprompt_jax.methods import registry

pytestmark = pytest.mark.fast

FILES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def slug(heading: str) -> str:
    """A heading's anchor, as GitHub makes it."""
    text = re.sub(r"[`*_]", "", heading.strip().lower())
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def anchors_of(text: str) -> set[str]:
    """The anchors of a file's headings."""
    return {slug(heading) for heading in re.findall(r"^#+ (.*)$", text, re.M)}


def broken_links(text: str, folder: Path) -> list[str]:
    """Relative links to no file, and anchors to no heading of this or another file."""
    prose = re.sub(r"```.*?```", "", text, flags=re.S)
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"(https?|mailto):", target):
            continue
        path, _, anchor = target.partition("#")
        if path and not (folder / path).exists():
            broken.append(target)
            continue
        if anchor and anchor not in anchors_of((folder / path).read_text() if path else text):
            broken.append(target)
    return broken


def test_the_checker_finds_what_is_broken(tmp_path):
    (tmp_path / "there.md").write_text("## There it is")
    text = (
        "# A `b` c\n[x](there.md) [y](gone.md) [z](#a-b-c) [w](#none) [h](https://a.b) "
        "[i](there.md#there-it-is) [j](there.md#nowhere)"
    )
    assert broken_links(text, tmp_path) == ["gone.md", "#none", "there.md#nowhere"]


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_links_lead_somewhere(path):
    assert broken_links(path.read_text(), path.parent) == []


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_configs_and_modules_of_commands_exist(path):
    text = path.read_text()
    for config in re.findall(r"configs/[\w/]+\.py", text):
        assert (ROOT / config).is_file(), config
    for module in re.findall(r"python3? -m (vprompt_jax[\w.]*)", text):
        file = ROOT / module.replace(".", "/")
        assert file.with_suffix(".py").is_file() or (file / "__main__.py").is_file(), module
    for verb in re.findall(r"(?:^ *|`)vprompt (\w+)", text, re.M):
        assert verb in VERBS, verb


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_files_that_are_named_exist(path):
    """`vprompt_jax/...`, `tests/...` and short forms such as `prompts/vp.py`."""
    names = re.findall(r"`((?:[\w.]+/)+[\w.]*\w)`", path.read_text())
    starts = ("vprompt_jax/", "tests/", "docs/", "configs/", "zoo/", "data/", "benchmark/")
    starts += ("prompts/", "clip/", "adapters/")
    for name in names:
        if name.startswith(starts) and not name.startswith("docs/api"):
            assert (ROOT / name).exists() or (ROOT / "vprompt_jax" / name).exists(), name


def test_the_lines_that_add_a_method_add_one(monkeypatch):
    from vprompt_jax.methods import table

    text = (ROOT / "docs" / "methods.md").read_text()
    (lines,) = re.findall(r"```python\n(.*?)```", text, re.S)
    monkeypatch.setattr(table, "METHODS", dict(table.METHODS))
    exec(lines, {})
    defaults = table.lookup("norm_linear").defaults
    assert (defaults["tune.weights"], defaults["head.kind"]) == ("norm", "linear")


def test_the_table_of_sweeps_counts_their_runs():
    text = (ROOT / "docs" / "results.md").read_text()
    rows = re.findall(r"^\| `(\w+)\.py` \|.*\| (\d+) \| (\d+) \|$", text, re.M)
    files = {p.stem for p in (ROOT / "configs" / "sweeps").glob("*.py")}
    files -= {"common", "masks", "folder_size", "paper_length"}  # the last three are ours
    assert {name for name, _, _ in rows} == files
    for name, paper, mini in rows:
        get_config = importlib.import_module(f"configs.sweeps.{name}").get_config
        assert [len(get_config(v).sweep) for v in ("paper", "mini")] == [int(paper), int(mini)]


def test_the_hours_are_what_their_command_prints():
    """Of one run by hand: VP on DTD's 1,880 images for 1,000 epochs in batches of 256."""
    import runpy

    made = runpy.run_path(str(ROOT / "docs" / "hours.py"))
    assert made["table"]() in (ROOT / "docs" / "reproduce.md").read_text()
    assert f"{made['SLOWER']:.1f} times slower" in (ROOT / "docs" / "reproduce.md").read_text()
    config = importlib.import_module("configs.sweeps.adavipro_t1").get_config()
    runs = {name: resolve(one) for name, one in sweep.expand(config).items()}
    rates = made["images_per_second"]()
    assert (rates["vp"], rates["ap"]) == (17849, 17874)
    assert made["hours"](runs["dtd-vp-s0"], rates) == (8 * 256 * 1000 / 17849 + 33) / 3600
    assert made["hours"](runs["dtd-tp-s0"], rates) == 33 / 3600
    assert made["train_images"](runs["eurosat-vp-s0"]) == 18900  # 30 % are cut for test


def test_the_page_of_config_keys_is_what_the_declarations_say():
    from vprompt_jax.config.__main__ import markdown

    assert (ROOT / "docs" / "config.md").read_text() == markdown()


def test_the_table_of_methods_has_every_method_and_no_other():
    from vprompt_jax.methods import METHODS

    table = (ROOT / "README.md").read_text().split("## Methods")[1].split("\n\n")[1]
    rows = [line.split("|")[1] for line in table.splitlines()[2:]]
    assert [name for row in rows for name in re.findall(r"`(\w+)`", row)] == list(METHODS)


# Where a part may be called by its name: in its own room, in rows of tables, and in configs.
ROOMS = {part.name: type(part).__module__.split(".")[1] for part in registry.PARTS}
# The benchmark has the quickstart's config; the room clip knows no parts, but files' tensor names.
TABLES = ("methods/table.py", "report/published.py", "benchmark/__main__.py")


@pytest.mark.parametrize("name", ROOMS)
def test_a_parts_name_stands_in_its_own_room_and_in_tables(name):
    """As a key of the config, of its sections, or of parameters by part."""
    taken = rf"""(?:params|parts|sections|trained)(?:\[|\.get\()["']{name}["']"""
    pattern = re.compile(rf"""\bconfig\.{name}\b|["']{name}\.\w+["']|{taken}""")
    for path in (ROOT / "vprompt_jax").rglob("*.py"):
        place = path.relative_to(ROOT / "vprompt_jax").as_posix()
        if place.startswith((ROOMS[name], "clip/")) or place in TABLES:
            continue
        code = [line.split("#")[0] for line in path.read_text().splitlines()]
        hits = [line.strip() for line in code if pattern.search(line)]
        assert hits == [], place
