"""One and four devices: the same examples, the same noise, the same masks, nearly the same run."""

import os
import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import ROOT


@pytest.fixture(scope="module")
def runs(tiny_path, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trajectories")
    results = []
    for name, devices in (("one", 1), ("again", 1), ("four", 4)):
        out = folder / f"{name}.npz"
        flags = f"--xla_force_host_platform_device_count={devices}"
        subprocess.run(
            [sys.executable, "-m", "tests.train.trajectory", str(tiny_path), str(out)],
            cwd=ROOT, env={**os.environ, "XLA_FLAGS": flags}, check=True,
        )  # fmt: skip
        results.append(np.load(out))
    return results


def learned(run):
    return [k for k in run.files if "." in k]


def test_the_same_seed_gives_the_same_result_twice(runs):
    one, again, _ = runs
    assert len(learned(one)) == 5
    for name in one.files:
        np.testing.assert_array_equal(one[name], again[name])


def test_examples_noise_and_masks_are_equal_on_one_and_four_devices(runs):
    one, _, four = runs
    assert (one["devices"], four["devices"]) == (1, 4)
    for name in ("seen", "noise", "marks"):
        np.testing.assert_array_equal(one[name], four[name])
    assert 0 < one["marks"].mean() < 1


def test_parameters_agree_between_one_and_four_devices(runs):
    one, _, four = runs
    for name in learned(one):
        scale = np.abs(one[name]).max()
        assert np.abs(one[name] - four[name]).max() < 1e-4 * scale
