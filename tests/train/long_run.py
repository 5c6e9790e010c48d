"""Ten thousand steps with evaluations and saves: memory, open files and compilations.

python -m tests.train.long_run CHECKPOINT WORKDIR [EPOCHS]

Prints the figures as JSON. "After warm-up" is after the first tenth of the run.
"""

import json
import logging
import os
import re
import sys
import threading
import time
from pathlib import Path

import jax

from vprompt_jax import config as config_lib
from vprompt_jax.train import fit

STEPS_PER_EPOCH = 100  # 3,200 examples in batches of 32


def config(checkpoint: str, epochs: int):
    c = config_lib.default_config()
    c.model.checkpoint = checkpoint
    c.prompt.size = 4
    c.mask.region = 8
    c.mask.width = 4
    c.data.few_shot = 320
    c.optim.batch_size = 32
    c.optim.epochs = epochs
    c.optim.warmup_steps = 100
    c.eval.every_epochs = 5
    c.checkpoint.every_steps = 200
    c.log.every_steps = 20
    return c


class Watch(logging.Handler):
    """Samples this process every second, and counts the programs that JAX compiles."""

    def __init__(self, workdir: Path):
        super().__init__()
        self.metrics, self.samples, self.compiled = workdir / "metrics.jsonl", [], []
        threading.Thread(target=self._sample, daemon=True).start()

    def emit(self, record):
        if found := re.match(r"Compiling (?:jit\()?(\w+)", record.getMessage()):
            self.compiled.append((self.step(), found[1]))

    def step(self) -> int:
        """Of the last line of metrics."""
        if not self.metrics.exists():
            return 0
        lines = self.metrics.read_text().splitlines()
        return json.loads(lines[-1])["step"] if lines else 0

    def _sample(self):
        while True:
            memory = int(re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[1])
            self.samples.append((self.step(), memory / 1024, len(os.listdir("/proc/self/fd"))))
            time.sleep(1)


def main(checkpoint: str, workdir: str, epochs: str = "101") -> None:
    watch = Watch(Path(workdir))
    jax.config.update("jax_log_compiles", True)
    logger = logging.getLogger("jax")
    logger.addHandler(watch)
    logger.propagate = False
    result = fit(config(checkpoint, int(epochs)), workdir)
    steps = result["steps"]
    settled = [s for s in watch.samples if steps / 10 < s[0] < steps]
    thirds = [settled[: len(settled) // 3], settled[-(len(settled) // 3) :]]
    print(
        json.dumps(
            {
                "steps": steps,
                "seconds": result["seconds"],
                "evaluations": -(-int(epochs) // 5),
                "memory_mib_first_third": max(m for _, m, _ in thirds[0]),
                "memory_mib_last_third": max(m for _, m, _ in thirds[1]),
                "open_files_first_third": max(f for _, _, f in thirds[0]),
                "open_files_last_third": max(f for _, _, f in thirds[1]),
                # "_fun" is what pmap calls whatever it maps.
                "steps_compiled": sum(name == "_fun" for _, name in watch.compiled),
                "compiled_after_warm_up": [
                    name for at, name in watch.compiled if steps / 10 < at < steps
                ],
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
