"""Has spoiled files read by worker processes, and tells what is neither read nor refused."""

import contextlib
import dataclasses
import functools
import json
import os
import queue
import re
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterable
from pathlib import Path

SECONDS = 20  # until an answer
MEGABYTES = 1024  # of memory, beyond what the process had

_ROOT = Path(__file__).parent.parent


@dataclasses.dataclass(frozen=True)
class Summary:
    """What came of the inputs.

    Attributes:
      read: how many gave a result.
      refused: how many gave a UserError.
      findings: what is wrong with the others, by their numbers.
      slowest: seconds.
      largest: megabytes of memory that an input took.
    """

    read: int
    refused: int
    findings: dict[int, str]
    slowest: float
    largest: float


def run(numbers: Iterable[int], workers: int = 2) -> Summary:
    """Reads the inputs of `tests.mutations` with these numbers, each in one of the workers."""
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in numbers:
        waiting.put(number)
    answers: dict[int, dict] = {}
    threads = [threading.Thread(target=_serve, args=(waiting, answers)) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    outcomes = [a["outcome"] for a in answers.values()]
    return Summary(
        outcomes.count("read"),
        outcomes.count("refused"),
        {n: a["detail"] for n, a in sorted(answers.items()) if a["outcome"] == "finding"},
        max(a["seconds"] for a in answers.values()),
        max(a["grown"] for a in answers.values()),
    )


def _serve(waiting: "queue.SimpleQueue[int]", answers: dict[int, dict]) -> None:
    """Feeds a worker, and starts another one where it ends or hangs."""
    worker = None
    while True:
        try:
            number = waiting.get_nowait()
        except queue.Empty:
            break
        if worker is None:
            worker = _start()
        start = time.monotonic()
        watchdog = threading.Timer(SECONDS, worker.kill)
        watchdog.start()
        worker.stdin.write(f"{number}\n")
        worker.stdin.flush()
        line = worker.stdout.readline()
        watchdog.cancel()
        seconds = time.monotonic() - start
        if line:
            answers[number] = json.loads(line) | {"seconds": seconds}
            continue
        status = _end(worker)
        detail = f"no answer in {SECONDS} s" if seconds > SECONDS else f"ended with {status}"
        answers[number] = {"outcome": "finding", "detail": detail, "seconds": seconds, "grown": 0}
        worker = None
    if worker is not None:
        _end(worker)


def _end(worker: subprocess.Popen) -> int:
    """Ends a worker, if it has not ended; returns its status."""
    with contextlib.suppress(BrokenPipeError):
        worker.stdin.close()
    worker.stdout.close()
    return worker.wait()


def _start() -> subprocess.Popen:
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(_ROOT)}
    worker = subprocess.Popen(
        [sys.executable, "-m", "tests.fuzzing"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True, cwd=_ROOT, env=environment,
    )  # fmt: skip
    worker.stdout.readline()  # it has imported JAX
    return worker


def _memory(name: str) -> float:
    """Megabytes of this process: VmRSS now, VmHWM at most since it was reset."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{name}:\s+(\d+)", status)[1]) / 1024


def _read(reader: str, path: Path) -> None:
    import numpy as np

    from vprompt_jax import clip
    from vprompt_jax.data import huggingface

    if reader == "weights":
        clip.load(path)
    else:
        dataset = huggingface.load(path, "", 32, 1)
        for _, split in dataset.splits():
            if len(split):
                split.fetch(np.arange(1))


def _answer(number: int, folder: Path) -> dict:
    from tests import mutations
    from vprompt_jax.process.errors import UserError

    reader, path = mutations.write(number, folder)
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    before = _memory("VmRSS")
    try:
        _read(reader, path)
        outcome, detail = "read", ""
    except UserError as error:
        outcome, detail = "refused", str(error)
        if isinstance(error.__cause__, MemoryError | RecursionError) or len(detail) > 5000:
            outcome, detail = "finding", f"refused by {error.__cause__!r:.80}: {detail[:200]}"
    except BaseException:
        outcome, detail = "finding", traceback.format_exc()
    grown = _memory("VmHWM") - before
    if grown > MEGABYTES:
        outcome, detail = "finding", f"took {grown:.0f} MB; {detail[:200]}"
    return {"outcome": outcome, "detail": detail, "grown": grown}


def main() -> None:
    """A worker: answers numbers on its standard input by lines of JSON."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # nothing else may print between the answers
    from vprompt_jax.clip.checkpoints import load

    # Tracing is what takes long of a good file; most inputs that load have one architecture.
    load.variable_shapes = functools.lru_cache(load.variable_shapes)
    with tempfile.TemporaryDirectory() as folder:
        _answer(0, Path(folder) / "0")
        print("ready", file=answers, flush=True)
        for line in sys.stdin:
            answer = _answer(int(line), Path(folder) / "input")
            print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
