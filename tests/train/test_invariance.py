"""Devices and processes: the same examples, noise and masks, nearly the same parameters."""

import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.train.trajectory import EVALUATED

EXAMPLES = 290  # nine steps of 30, one of 20
WHOLE = 3234  # 107 steps of 30, one of 24
# Relative to the largest parameter of a leaf. Sums over devices are added in another order, and
# the learning rate of 40 enlarges what that changes.
TOLERANCE = 1e-4


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def environment(devices: int, port: int, processes: int, process: int) -> dict[str, str]:
    """Of one process of several on this machine, with so many virtual devices of its own."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    env = {**os.environ, "XLA_FLAGS": flags}
    if processes > 1:
        env |= {
            "VPROMPT_COORDINATOR": f"127.0.0.1:{port}",
            "VPROMPT_PROCESSES": str(processes),
            "VPROMPT_PROCESS": str(process),
            # One process that compiles while the other has a cached program makes Gloo, which
            # connects when a program first runs, give up after 30 seconds on a busy machine.
            "JAX_ENABLE_COMPILATION_CACHE": "false",
        }
    return env


def trajectory(
    checkpoint, out, *, processes=1, devices, examples=EXAMPLES, implementation="pmapped"
):
    port = free_port()
    command = [sys.executable, "-m", "tests.train.trajectory"]
    command += [str(checkpoint), out, str(examples), implementation]
    started = [
        subprocess.Popen(command, cwd=ROOT, env=environment(devices, port, processes, i))
        for i in range(processes)
    ]
    assert [p.wait(timeout=1800) for p in started] == [0] * processes
    return np.load(out)


@pytest.fixture(scope="module")
def runs(tiny_path, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trajectories")
    return {
        name: trajectory(tiny_path, str(folder / f"{name}.npz"), processes=p, devices=d)
        for name, p, d in (("one", 1, 1), ("again", 1, 1), ("four", 1, 4))
    }


def learned(run):
    return [k for k in run.files if "." in k]


def assert_same_choices(a, b):
    """Equal examples, Gumbel noise and masks of equal parameters; every image evaluated once."""
    for name in ("seen", "noise", "marks"):
        np.testing.assert_array_equal(a[name], b[name])
    assert 0 < a["marks"].mean() < 1
    for size in EVALUATED:
        np.testing.assert_array_equal(b[f"evaluated {size}"], np.arange(size))
        assert b[f"count {size}"] == size
        assert a[f"accuracy {size}"] == b[f"accuracy {size}"]


def distance(a, b) -> float:
    """Largest difference of a parameter, relative to the largest value in its leaf."""
    return max(np.abs(a[n] - b[n]).max() / np.abs(a[n]).max() for n in learned(a))


def test_the_same_seed_gives_the_same_result_twice(runs):
    one, again = runs["one"], runs["again"]
    assert len(learned(one)) == 5
    for name in one.files:
        np.testing.assert_array_equal(one[name], again[name])


def test_devices_change_nothing_but_rounding(runs):
    one, four = runs["one"], runs["four"]
    assert four["devices"] == 4
    np.testing.assert_array_equal(np.sort(one["seen"]), np.arange(EXAMPLES))
    assert_same_choices(one, four)
    assert distance(one, four) < TOLERANCE


@pytest.mark.parametrize("name, devices", [("one", 1), ("four", 4)])
def test_shard_map_in_place_of_pmap_changes_nothing_but_rounding(
    runs, tiny_path, tmp_path, name, devices
):
    """The two ways of process/parallel.py to run a step on all devices."""
    out = str(tmp_path / f"{name}.npz")
    mapped = trajectory(tiny_path, out, devices=devices, implementation="shard_mapped")
    assert (runs[name]["implementation"], mapped["implementation"]) == ("pmapped", "shard_mapped")
    assert mapped["devices"] == devices
    assert_same_choices(runs[name], mapped)
    print(f"{devices} devices: parameters differ by {distance(runs[name], mapped):.1e}")
    assert distance(runs[name], mapped) < TOLERANCE


@pytest.mark.slow
def test_processes_instead_of_devices_change_next_to_nothing(runs, tiny_path, tmp_path):
    """Four devices add up alike, wherever they are."""
    pair = trajectory(tiny_path, str(tmp_path / "pair.npz"), processes=2, devices=2)
    assert (pair["devices"], pair["processes"]) == (4, 2)
    assert_same_choices(runs["one"], pair)
    assert distance(runs["four"], pair) < 1e-6


@pytest.mark.slow
def test_a_whole_epoch_on_1_2_4_and_8_devices(tiny_path, tmp_path):
    one = trajectory(tiny_path, str(tmp_path / "one.npz"), devices=1, examples=WHOLE)
    for processes, devices in ((1, 2), (1, 4), (1, 8), (2, 2)):
        out = str(tmp_path / f"{processes}x{devices}.npz")
        other = trajectory(tiny_path, out, processes=processes, devices=devices, examples=WHOLE)
        assert_same_choices(one, other)
        print(f"{processes} x {devices}: parameters differ by {distance(one, other):.1e}")
        assert distance(one, other) < 100 * TOLERANCE
