"""Hours of the papers' sweeps on one GPU, as a table: python docs/hours.py

Of each run: steps x batch / (images/s), and the seconds to the first step. The images/s are those
that docs/benchmark.md has from one H100 (ViT-B/32, bfloat16, batch 256); the images of a data set
are those of its row. Evaluations and the decoding of images are not in it.
"""

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # configs/ is no package of the library

from vprompt_jax.config import resolve
from vprompt_jax.config import sweep as sweeps
from vprompt_jax.config.config import Config
from vprompt_jax.data import catalogue
from vprompt_jax.data.pipeline import steps_per_epoch

SWEEPS = ("adavipro_t1", "adavipro_fig2", "adavipro_t2", "ap_accuracy")
FIRST_STEP = 33  # seconds, docs/benchmark.md
# An RTX 3090 was not there. VP's step took 12.9 ms on the H100, 5.5 of them in matrix products and
# the rest in memory traffic (docs/benchmark.md); each part is scaled by the cards' peak rates:
# bfloat16 TFLOP/s with float32 sums (989 and 71), and TB/s (3.35 and 0.936).
SLOWER = (5.5 * 989 / 71 + 7.4 * 3.35 / 0.936) / 12.9


def images_per_second() -> dict[str, float]:
    """By method, from the table of every method on a GPU; AP at position 0."""
    text = (ROOT / "docs" / "benchmark.md").read_text()
    table = text.split("Every method in bfloat16")[1].split("\n\n")[1]
    rows = re.findall(r"^\| `(\w+)`(?:, position 0)? \| ([\d,]+) \|", table, re.M)
    return {method: float(number.replace(",", "")) for method, number in rows}


def train_images(config: Config) -> int:
    """Images that a run trains on, as the table of data sets says; 0 where it does not."""
    row, data = catalogue.CATALOGUE[config.data.name], config.data
    if data.split == "vtab":
        return 800 if config.protocol == "val" else 1000
    if row.sizes is None:
        return 0
    count = float(row.sizes[0])
    if "test" not in row.splits and not row.sizes[2]:
        count *= 1 - row.test_fraction
    if config.protocol == "val" and "val" not in row.splits:
        count *= 1 - data.val_fraction
    return round(count)


def hours(config: Config, rates: dict[str, float]) -> float:
    """Of one run on the H100."""
    seconds = float(FIRST_STEP)
    if config.trained:
        batch = config.optim.batch_size
        steps = config.optim.epochs * steps_per_epoch(train_images(config), batch)
        seconds += steps * batch / rates[config.method.name]
    return seconds / 3600


def rows() -> Iterator[str]:
    rates = images_per_second()
    for name in SWEEPS:
        config = importlib.import_module(f"configs.sweeps.{name}").get_config()
        runs = [resolve(one) for one in sweeps.expand(config).values()]
        total = sum(hours(run, rates) for run in runs)
        yield f"| `{name}.py` | {len(runs)} | {total:,.0f} | {total * SLOWER:,.0f} |"


def table() -> str:
    header = "| sweep | runs | hours, one H100 | hours, one RTX 3090 (estimate) |"
    return "\n".join([header, "| --- | --- | --- | --- |", *rows()])


if __name__ == "__main__":
    print(table())
