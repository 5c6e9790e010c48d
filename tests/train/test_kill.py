"""`launch.py` killed at random moments ends as if it had never been killed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from tests.conftest import ROOT

TIMES = ("seconds", "images_per_second", "seconds_to_first_step", "input_wait")
CONFIG = """
from vprompt_jax.config import default_config


def get_config():
    c = default_config()
    c.name = "killed"
    c.model.checkpoint = {checkpoint!r}
    c.prompt.size = 4
    c.mask.region = 8
    c.mask.width = 4
    c.data.few_shot = 320
    c.optim.batch_size = 64
    c.optim.epochs = {epochs}
    c.optim.warmup_steps = 5
    c.eval.every_epochs = 1
    c.checkpoint.every_steps = 8  # neither divides the other, nor the 51 steps of an epoch
    c.log.every_steps = 3
    return c
"""


class Driver:
    """Starts runs of one config, and ends them before they are ready."""

    def __init__(self, folder: Path, checkpoint: Path, epochs: int, rng: random.Random):
        self.folder, self.rng, self.last = folder, rng, 50 * epochs
        self.config = folder / "config.py"
        self.config.write_text(CONFIG.format(checkpoint=str(checkpoint), epochs=epochs))
        self.log = folder / "log.txt"
        self.whole = folder / "whole"
        begun = time.monotonic()
        process = self.start(self.whole)
        self._until(process, lambda: self._lines(self.whole))
        self.start_up = time.monotonic() - begun
        assert process.wait() == 0, self.log.read_text()

    def start(self, workdir: Path) -> subprocess.Popen:
        env = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=1"}
        with self.log.open("a") as log:
            return subprocess.Popen(
                [sys.executable, "launch.py", f"--config={self.config}", f"--workdir={workdir}"],
                cwd=ROOT, env=env, stdout=log, stderr=log,
            )  # fmt: skip

    def interrupt(self, workdir: Path, moment: str) -> int:
        """Starts the run, ends it at a moment, and returns its exit status."""
        process = self.start(workdir)
        lines, saves = self._lines(workdir), self._saves(workdir)
        if moment == "start-up":
            # Before the first new line of metrics, however fast the machine is just now.
            end = time.monotonic() + self.rng.uniform(0, self.start_up)
            self._until(process, lambda: time.monotonic() > end or self._lines(workdir) != lines)
        elif moment in ("training", "SIGTERM"):
            self._until(process, lambda: self._lines(workdir) != lines)
            self._sleep(process, self.rng.uniform(0, 0.3))
        elif moment == "save":
            self._until(process, lambda: self._saves(workdir) - saves)
            self._sleep(process, self.rng.uniform(0, 0.1))
        elif moment == "evaluation":
            self._until(process, lambda: (workdir / "checkpoints" / str(self.last)).is_dir())
            self._sleep(process, self.rng.uniform(0, 2))
        process.send_signal(signal.SIGTERM if moment == "SIGTERM" else signal.SIGKILL)
        return process.wait(timeout=300)

    def _lines(self, workdir: Path) -> int:
        path = workdir / "metrics.jsonl"
        return path.stat().st_size if path.exists() else 0

    def _saves(self, workdir: Path) -> set[str]:
        """Names in the folder of checkpoints, those being written included."""
        folder = workdir / "checkpoints"
        return set(os.listdir(folder)) if folder.is_dir() else set()

    def _until(self, process, condition):
        while process.poll() is None and not condition():
            time.sleep(0.002)

    def _sleep(self, process, seconds: float):
        end = time.monotonic() + seconds
        self._until(process, lambda: time.monotonic() > end)

    def assert_same_as_whole(self, workdir: Path):
        a, b = (json.loads((w / "result.json").read_text()) for w in (self.whole, workdir))
        assert {k: v for k, v in a.items() if k not in TIMES} == {
            k: v for k, v in b.items() if k not in TIMES
        }
        a, b = ((w / "metrics.jsonl").read_text() for w in (self.whole, workdir))
        assert a == b
        a, b = (_arrays(w, self.last) for w in (self.whole, workdir))
        assert a.keys() == b.keys()
        assert len(a) > 15  # parameters, momentum, schedules, best
        for name in a:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def _arrays(workdir: Path, step: int) -> dict[str, np.ndarray]:
    tree = ocp.StandardCheckpointer().restore(workdir / "checkpoints" / str(step) / "arrays")
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


@pytest.mark.slow
def test_a_run_killed_at_start_up_in_a_save_and_by_sigterm_ends_the_same(tiny_path, tmp_path):
    driver = Driver(tmp_path, tiny_path, epochs=3, rng=random.Random(0))
    workdir = tmp_path / "killed"
    assert driver.interrupt(workdir, "start-up") == -signal.SIGKILL
    assert driver.interrupt(workdir, "SIGTERM") == 128 + signal.SIGTERM
    assert "the same command goes on" in driver.log.read_text()
    assert driver.interrupt(workdir, "save") == -signal.SIGKILL
    assert not (workdir / "result.json").exists()
    assert driver.start(workdir).wait() == 0
    driver.assert_same_as_whole(workdir)


@pytest.mark.slow
def test_fifty_kills_at_random_moments_change_nothing(tiny_path, tmp_path):
    seed = int(os.environ.get("VPROMPT_TEST_SEED", random.randrange(10**6)))
    rng = random.Random(seed)
    print(f"seed {seed}")
    driver = Driver(tmp_path, tiny_path, epochs=5, rng=rng)
    kills: dict[str, int] = {}
    runs = 0
    while sum(kills.values()) < 50:
        runs += 1
        workdir = tmp_path / f"run{runs}"
        for _ in range(20):  # then it may finish
            moment = rng.choice(("start-up", "training", "training", "save", "save", "SIGTERM"))
            if driver.interrupt(workdir, moment) != 0:
                kills[moment] = kills.get(moment, 0) + 1
        driver.interrupt(workdir, "evaluation")
        kills["evaluation"] = kills.get("evaluation", 0) + 1
        assert driver.start(workdir).wait() == 0, driver.log.read_text()[-3000:]
        driver.assert_same_as_whole(workdir)
        assert "Traceback" not in driver.log.read_text()
    print(f"{sum(kills.values())} kills of {runs} runs: {kills}")
