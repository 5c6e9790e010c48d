"""Results as Markdown and CSV."""

import csv
import dataclasses
import io
from typing import Any

import numpy as np

from vprompt_jax.report.results import Accuracies, paired, setting_of, spread


def _markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def accuracy_table(results: list[dict[str, Any]], grouped: Accuracies) -> str:
    """One row per setting: accuracy and share of regions on over the seeds, parameters, time."""
    rows = []
    for setting, by_seed in grouped.items():
        members = [r for r in results if setting_of(r) == setting]
        on = [r["regions_on"] for r in members if r["regions_on"] is not None]
        rows.append(
            [
                setting.method,
                setting.init or "-",
                str(setting.size or "-"),
                spread(np.array(list(by_seed.values()))),
                spread(np.array(on)) if on else "-",
                f"{members[0]['trainable_parameters']:,}",
                f"{np.mean([r['seconds'] for r in members]):.0f}",
                str(len(by_seed)),
            ]
        )
    header = ["method", "start", "size (px)", "test accuracy (%)", "regions on (%)",
              "trained parameters", "seconds", "seeds"]  # fmt: skip
    return _markdown(header, rows)


def difference_table(grouped: Accuracies, zero_shot: float) -> str:
    """AdaViPro against VP with the same start, size and seed, and against zero-shot."""
    rows = []
    for setting, ours in grouped.items():
        theirs = grouped.get(dataclasses.replace(setting, method="vp"), {})
        differences = paired(ours, theirs)
        if setting.method != "adavipro" or not len(differences):
            continue
        above = f"{(differences > 0).sum()} of {len(differences)}"
        against = np.array(list(ours.values())) - zero_shot
        rows.append([setting.init, str(setting.size), spread(differences), above, spread(against)])
    header = ["start", "size (px)", "AdaViPro - VP (points)", "seeds above VP",
              "AdaViPro - zero-shot (points)"]  # fmt: skip
    return _markdown(header, rows) if rows else ""


def as_csv(results: list[dict[str, Any]]) -> str:
    """One line per run with the scalars of its result."""
    scalars = (str, int, float, bool, type(None))
    names = [k for k, v in results[0].items() if isinstance(v, scalars)]
    extra = {k for r in results for k, v in r.items() if isinstance(v, scalars)} - set(names)
    text = io.StringIO()
    writer = csv.DictWriter(text, [*names, *sorted(extra)], extrasaction="ignore")
    writer.writeheader()
    writer.writerows(results)
    return text.getvalue()
