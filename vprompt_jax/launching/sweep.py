"""Runs the variations a config lists, one after another, then reports on them."""

import time
from pathlib import Path
from statistics import median

from ml_collections import ConfigDict

from vprompt_jax.config import resolve
from vprompt_jax.config.sweep import expand
from vprompt_jax.process.errors import UserError
from vprompt_jax.process.printable import duration


def run(config: ConfigDict, workdir: Path) -> None:
    """Runs what is not finished, each in a folder of its name, and writes the report.

    Args:
      config: with a `sweep`.
      workdir: folder of the runs' folders and the report.

    Raises:
      UserError: as `train.fit`, the finished runs stay; or if there are several processes.
    """
    import jax

    from vprompt_jax import report
    from vprompt_jax.evaluate import also
    from vprompt_jax.train.result import read
    from vprompt_jax.train.run import fit

    runs = expand(config)
    if jax.process_count() > 1:
        raise UserError(
            "a sweep runs on one machine, one run after another: on several, start each run by "
            f"itself with --run=0 to --run={len(runs) - 1}"
        )
    # A mistake in the last run, or images that it lacks, show before the first one starts.
    resolved = {name: resolve(one) for name, one in runs.items()}
    left = [name for name in runs if read(workdir / name) is None]
    also.find(resolved[name] for name in left)
    results = []
    taken = []  # seconds of those that have run
    for number, (name, one) in enumerate(runs.items(), 1):
        started = time.monotonic()
        result = fit(one, workdir / name)
        elsewhere = also.measure(workdir / name)
        results.append(result)
        jax.clear_caches()  # or every run's compiled steps, some 60 MB, would stay in memory
        if name in left:
            left.remove(name)
            taken.append(time.monotonic() - started)
        zero_shot = result["zero_shot_accuracy"]
        beside = "" if zero_shot is None else f" (zero-shot {zero_shot:.2%})"
        then = f"; about {duration(len(left) * median(taken))} left" if left and taken else ""
        print(
            f"[{number}/{len(runs)}] {name}: {result['test_accuracy']:.2%}{beside}{then}",
            flush=True,
        )
        for line in elsewhere:
            print(f"    {line}", flush=True)
    several = len({result["dataset"] for result in results}) > 1
    written = report.write(
        [workdir / name for name in runs], workdir, by_dataset=several, title=config.name
    )
    for path in written:
        print(f"wrote {path}")
