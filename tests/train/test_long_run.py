"""A run of 10,000 steps: nothing grows, nothing is compiled twice."""

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.slow
def test_ten_thousand_steps(tiny_path, tmp_path):
    env = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=1"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.train.long_run", str(tiny_path), str(tmp_path / "run")],
        cwd=ROOT, env=env, capture_output=True, text=True, check=True,
    )  # fmt: skip
    print(done.stdout)
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["steps"] == 101 * 100
    # Training; evaluation of val, smaller than a batch, and of test, each with and without the
    # prompt; test with other images' masks.
    assert figures["steps_compiled"] == 6
    assert figures["compiled_after_warm_up"] == []
    assert figures["memory_mib_last_third"] < 1.03 * figures["memory_mib_first_third"]
    assert figures["open_files_last_third"] <= figures["open_files_first_third"] + 2
