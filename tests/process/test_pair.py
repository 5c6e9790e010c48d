"""Two real processes on loopback decide together."""

import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.train.test_invariance import environment, free_port


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    port = free_port()
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.process.pair", str(folder)],
            cwd=ROOT, env=environment(1, port, 2, i), stderr=subprocess.PIPE, text=True,
        )
        for i in range(2)
    ]  # fmt: skip
    errors = [p.communicate(timeout=300)[1] for p in started]
    assert [p.returncode for p in started] == [0, 0], "\n".join(errors)
    return [json.loads((folder / f"learned{i}.json").read_text()) for i in range(2)], folder


def test_values_of_any_length_go_to_all(learned):
    for own in learned[0]:
        assert own["gather"] == [{"i": 0, "text": "ä"}, {"i": 1, "text": "ä" * 1001}]
        assert own["broadcast"] == "first"
        assert own["by_first"] == 0


def test_a_mistake_that_process_0_sees_ends_all(learned):
    assert [own["failed"] for own in learned[0]] == ["process 0 cannot"] * 2


def test_a_difference_is_found_in_all_and_named(learned):
    for own in learned[0]:
        assert own["same"] == ""
        assert "do not see the same thing (process 1 on " in own["differs"]


def test_process_0_holds_the_workdir_for_all(learned):
    assert all(own["lock"] and own["removed"] for own in learned[0])


def test_a_workdir_that_is_not_shared_shows_at_the_first_start(learned):
    rows, folder = learned
    for own in rows:
        assert "is not what process 1 on " in own["own"]
        assert "name a folder that all machines share by --workdir" in own["own"]
    assert not (folder / "own0").exists()  # no trace
    assert not (folder / "own1").exists()


def test_all_cache_or_none(learned):
    """The least free memory decides, and processes of one machine share it."""
    a, b = learned[0]
    assert "over 50% of the 0.0 GB free" in a["lacking"]
    assert a["lacking"] == b["lacking"]
    assert a["fits"] is None
    assert b["fits"] is None
    assert "for each of 2 processes" in a["together"]
    assert a["together"] == b["together"]
