"""What pyproject.toml states agrees with the lowest versions that are tested, and with itself."""

import re
import tomllib

import pytest

import vprompt_jax
from tests.conftest import ROOT

pytestmark = pytest.mark.fast

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def bounds(requirements: list[str]) -> dict[str, str]:
    """Lower bounds by name; exact requirements are left out."""
    found = [re.match(r"([\w-]+)>=([\w.]+)", line) for line in requirements]
    return {match[1]: match[2] for match in found if match}


def pins() -> dict[str, str]:
    """The versions of tests/requirements-lowest.txt by name."""
    lines = (ROOT / "tests" / "requirements-lowest.txt").read_text().split()
    return dict(line.split("==") for line in lines)


def test_the_lowest_versions_are_the_bounds():
    extras = PROJECT["optional-dependencies"]
    stated = bounds(PROJECT["dependencies"]) | bounds(extras["test"]) | bounds(extras["tfds"])
    pinned = pins()
    assert pinned.pop("jaxlib") == pinned["jax"]
    assert stated.pop("tensorflow") == stated["tensorflow-cpu"]  # the same, on other machines
    assert set(pinned) == set(stated)
    for name, version in stated.items():
        assert f"{pinned[name]}.0.0".startswith(f"{version}."), name


def test_every_requirement_has_a_lower_bound():
    assert len(bounds(PROJECT["dependencies"])) == len(PROJECT["dependencies"])


def test_the_version_is_stated_once():
    assert PROJECT["dynamic"] == ["version"]
    assert f"version: {vprompt_jax.__version__}\n" in (ROOT / "CITATION.cff").read_text()
