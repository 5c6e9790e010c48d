"""`predictions.parquet`: a row per image of test and val."""

import dataclasses
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vprompt_jax.measures.split import confidence
from vprompt_jax.process.errors import UserError
from vprompt_jax.process.files import replace
from vprompt_jax.process.printable import printable

NAME = "predictions.parquet"


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What was predicted on a split.

    Attributes:
      keys: names of the images in the dataset.
      labels: int [n].
      logits: float32 [n, C].
      zero_shot: float32 [n, C], of the unadapted CLIP; None without a text tower.
    """

    keys: list[str]
    labels: np.ndarray
    logits: np.ndarray
    zero_shot: np.ndarray | None


def write(
    path: Path,
    by_split: Mapping[str, Predictions],
    temperature: float | None,
    class_names: Sequence[str],
) -> None:
    """Writes the table.

    Columns: `split`, `index` (in the split), `image` (its key), `label` and `predicted` (class
    names), `probability` (of the predicted class), `probability_scaled` (with the temperature
    fitted on val; null without), `probability_of_label`, `zero_shot` (the unadapted CLIP's class;
    null without).
    """
    tables = [_of(name, p, temperature, class_names) for name, p in by_split.items()]
    encoded = io.BytesIO()
    pq.write_table(pa.concat_tables(tables), encoded)
    replace(path, encoded.getvalue())


def _of(
    split: str, given: Predictions, temperature: float | None, class_names: Sequence[str]
) -> pa.Table:
    from scipy.special import log_softmax  # late: a run needs it at its end

    def called(labels: np.ndarray) -> pa.Array:
        return pa.array([class_names[label] for label in labels], pa.string())

    n = len(given.labels)
    log_p = log_softmax(given.logits.astype(np.float64), axis=-1)
    scaled, before = pa.nulls(n, pa.float32()), pa.nulls(n, pa.string())
    if temperature is not None:
        scaled = pa.array(confidence(given.logits, temperature), pa.float32())
    if given.zero_shot is not None:
        before = called(given.zero_shot.argmax(-1))
    return pa.table({
        "split": pa.array([split] * n, pa.string()),
        "index": pa.array(np.arange(n), pa.int32()),
        "image": pa.array([printable(key) for key in given.keys], pa.string()),
        "label": called(given.labels),
        "predicted": called(given.logits.argmax(-1)),
        "probability": pa.array(np.exp(log_p.max(-1)), pa.float32()),
        "probability_scaled": scaled,
        "probability_of_label": pa.array(np.exp(log_p[np.arange(n), given.labels]), pa.float32()),
        "zero_shot": before,
    })  # fmt: skip


def read(workdir: Path, split: str) -> dict[str, np.ndarray[Any, Any]] | None:
    """The rows of a split as arrays by column; None if the run has no table, or no such rows.

    Raises:
      UserError: if the file is damaged.
    """
    path = workdir / NAME
    if not path.is_file():
        return None
    try:
        table = pq.read_table(path)
        rows = {c: np.asarray(table[c].to_pylist()) for c in table.column_names}
        chosen = rows["split"] == split
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise UserError(
            f"{path} is damaged ({error}): delete it, and what is drawn from it is left out"
        ) from error
    return {c: values[chosen] for c, values in rows.items()} if chosen.any() else None
