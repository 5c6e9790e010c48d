"""Two real `launch.py` processes on loopback: they finish as one, and none outlives the other."""

import json
import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import ROOT
from tests.train.test_invariance import environment, free_port
from tests.train.test_kill import CONFIG

HEARTBEAT = 10  # seconds; 60 by default
# A closed connection shows at once. A silent peer is noticed after the heartbeat's timeout, which
# the process that watches learns by its next poll.
LIMIT = 4 * HEARTBEAT


class Pair:
    """The two processes of one run, and what they printed."""

    def __init__(self, folder, checkpoint, epochs: int):
        self.folder, self.workdir = folder, folder / "run"
        (folder / "config.py").write_text(CONFIG.format(checkpoint=str(checkpoint), epochs=epochs))

    def start(self) -> list[subprocess.Popen]:
        port = free_port()
        self.logs = [self.folder / f"log{i}.txt" for i in range(2)]
        args = [f"--config={self.folder / 'config.py'}", f"--workdir={self.workdir}"]
        started = []
        for i, path in enumerate(self.logs):
            env = environment(2, port, 2, i) | {"VPROMPT_HEARTBEAT_SECONDS": str(HEARTBEAT)}
            command = [sys.executable, "launch.py", *args]
            with path.open("w") as log:
                started.append(subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log))
        return started

    def text(self, i: int) -> str:
        return self.logs[i].read_text()

    def wait_for_a_save(self, processes):
        folder = self.workdir / "checkpoints"
        end = time.monotonic() + 300
        while not any(p.name.isdigit() for p in folder.glob("*")):
            assert all(p.poll() is None for p in processes), self.text(0) + self.text(1)
            assert time.monotonic() < end
            time.sleep(0.05)


def end(processes):
    for p in processes:
        p.send_signal(signal.SIGKILL)
        p.wait()


@pytest.mark.slow  # a minute, and a loaded machine answers late
def test_two_processes_lose_one_and_then_finish_together(tiny_path, tmp_path):
    pair = Pair(tmp_path, tiny_path, epochs=1)
    processes = pair.start()
    try:
        pair.wait_for_a_save(processes)
        processes[1].kill()
        assert processes[0].wait(timeout=LIMIT) != 0
        assert "another one is gone" in pair.text(0) or "distributed service" in pair.text(0)
    finally:
        end(processes)
    processes = pair.start()
    try:
        assert [p.wait(timeout=300) for p in processes] == [0, 0], pair.text(0) + pair.text(1)
    finally:
        end(processes)
    result = json.loads((pair.workdir / "result.json").read_text())
    assert result["steps"] == 50
    assert result["devices"].startswith("4 x")
    lines = [json.loads(x) for x in (pair.workdir / "metrics.jsonl").read_text().splitlines()]
    # One process alone writes: 17 lines of training, one of validation.
    assert [x["step"] for x in lines] == [*range(3, 50, 3), 50, 50]
    assert "val accuracy" not in pair.text(1)
    assert "results in" not in pair.text(1)


@pytest.mark.slow
@pytest.mark.parametrize("lost, how", [(0, "SIGKILL"), (1, "SIGSTOP"), (0, "SIGSTOP")])
def test_a_dead_or_silent_process_ends_the_other(tiny_path, tmp_path, lost, how):
    pair = Pair(tmp_path, tiny_path, epochs=200)
    processes = pair.start()
    try:
        pair.wait_for_a_save(processes)
        processes[lost].send_signal(getattr(signal, how))
        begun = time.monotonic()
        assert processes[1 - lost].wait(timeout=LIMIT) != 0
        print(f"{how} of process {lost}: the other ended after {time.monotonic() - begun:.1f} s")
        assert pair.text(1 - lost).strip()
    finally:
        end(processes)


@pytest.mark.slow
def test_sigterm_to_one_process_saves_in_both(tiny_path, tmp_path):
    pair = Pair(tmp_path, tiny_path, epochs=200)
    processes = pair.start()
    try:
        pair.wait_for_a_save(processes)
        processes[1].send_signal(signal.SIGTERM)
        statuses = [p.wait(timeout=120) for p in processes]
    finally:
        end(processes)
    assert statuses == [128 + signal.SIGTERM] * 2, pair.text(0) + pair.text(1)
    saved = max(int(p.name) for p in (pair.workdir / "checkpoints").glob("*") if p.name.isdigit())
    assert f"after step {saved} of" in pair.text(0)
