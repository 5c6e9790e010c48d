"""Methods against their baselines and zero-shot: differences paired by seed, and pooled."""

from collections.abc import Sequence

import numpy as np
from scipy import stats

from vprompt_jax.methods import METHODS
from vprompt_jax.methods.table import baseline_of, title_of
from vprompt_jax.report.results import (
    Groups,
    Record,
    Setting,
    accuracies,
    deviation,
    paired,
    spread,
)
from vprompt_jax.report.tables import Table, cells, keys_of, label


def table(groups: Groups) -> Table | None:
    """Methods against their baselines (`Method.baseline`) with otherwise equal settings and the
    same seed, and both against zero-shot.

    Where masks decide, it also shows how many regions are on and what accuracy is lost if images
    get each other's masks. The last rows pool the settings, and those in which the baseline ends
    below zero-shot: the mean over them is taken for each seed, and its 95 % interval is Student's
    over the seeds.

    Returns:
      None if no method stands beside its baseline.
    """
    own = _own_sections(groups)
    pairs = _pairs(groups, own)
    if not pairs:
        return None
    keys = [k for k in keys_of(groups) if k != "method.name"]
    keys = [k for k in keys if k.partition(".")[0] not in own] + [
        k for k in keys if k.partition(".")[0] in own
    ]
    masked = any(_exchanged(ours) is not None for _, ours, _ in pairs)
    rows = []
    for setting, ours, theirs in pairs:
        points = paired(ours, theirs)
        row = [
            *cells(setting, keys),
            spread(_gains(theirs)),
            spread(_gains(ours)),
            spread(points),
            f"{(points > 0).sum()} of {len(points)}",
        ]
        if masked:
            lost = _exchanged(ours)
            on = np.array([r.result["regions_on"] or 0.0 for r in ours.values()])
            row += ["-", "-"] if lost is None else [spread(on), spread(lost)]
        rows.append(row)
    methods = [dict(setting)["method.name"] for setting, _, _ in pairs]
    titles = {(title_of(method), title_of(baseline_of(method))) for method in methods}
    ((one, other),) = titles if len(titles) == 1 else (("method", "baseline"),)
    header = [
        *map(label, keys),
        f"{other} - zero-shot (points)",
        f"{one} - zero-shot (points)",
        f"{one} - {other} (points)",
        f"seeds above {other}",
    ]
    if masked:
        header += ["regions on (%)", "own masks - others' (points)"]
    if len(titles) == 1 and len(pairs) > 1:
        differences = [paired(ours, theirs) for _, ours, theirs in pairs]
        below = [_gains(theirs).mean() < 0 for _, _, theirs in pairs]
        rows.append(_pooled("all settings", differences, header))
        if any(below) and not all(below):
            chosen = [d for d, is_below in zip(differences, below, strict=True) if is_below]
            rows.append(_pooled(f"those with {other} below zero-shot", chosen, header))
    return Table(f"{one} against {other}, paired by seed", header, rows)


def _pairs(
    groups: Groups, own: set[str]
) -> list[tuple[Setting, dict[int, Record], dict[int, Record]]]:
    """Settings of methods beside whose runs there are some of their baseline: both by seed.

    `own` sections are not compared.
    """
    others = {
        (dict(setting)["method.name"], _without(setting, own)): by_seed
        for setting, by_seed in groups.items()
    }
    pairs = []
    for setting, ours in groups.items():
        baseline = baseline_of(dict(setting)["method.name"])
        theirs = others.get((baseline, _without(setting, own)), {})
        has_text = all(r.result["zero_shot_accuracy"] is not None for r in ours.values())
        if ours.keys() & theirs.keys() and has_text:
            pairs.append((setting, ours, theirs))
    return pairs


def _gains(by_seed: dict[int, Record]) -> np.ndarray:
    """Gains on zero-shot [seeds], 0..1."""
    return accuracies(by_seed) - [r.result["zero_shot_accuracy"] for r in by_seed.values()]


def _exchanged(by_seed: dict[int, Record]) -> np.ndarray | None:
    """What is lost [seeds] if images get each other's masks; None if there are none."""
    found = [r.result.get("controls", {}).get("masks_exchanged") for r in by_seed.values()]
    return None if None in found else accuracies(by_seed) - found


def _pooled(name: str, differences: Sequence[np.ndarray], header: Sequence[str]) -> list[str]:
    """A row on several settings: the mean difference and its interval over the seeds."""
    row = ["-"] * len(header)
    row[0] = name
    at = next(i for i, text in enumerate(header) if text.startswith("seeds above")) - 1
    if len({len(points) for points in differences}) == 1:
        by_seed = np.mean(differences, axis=0)
        mean, count = by_seed.mean(), len(by_seed)
        row[at] = f"{100 * mean:+.2f}"
        if count > 1:
            half = stats.t.ppf(0.975, count - 1) * deviation(by_seed) / count**0.5
            row[at] += f" (95 %: {100 * (mean - half):+.2f} to {100 * (mean + half):+.2f})"
    above = sum(int((points > 0).sum()) for points in differences)
    row[at + 1] = f"{above} of {sum(map(len, differences))}"
    return row


def _own_sections(groups: Groups) -> set[str]:
    """Sections of parts that a method of the groups has and its baseline lacks."""
    sections = set()
    for setting in groups:
        method = METHODS.get(dict(setting)["method.name"].partition(" ")[0])
        if method is not None and method.baseline:
            theirs = METHODS[method.baseline].parts
            sections |= {key.partition(".")[0] for key in method.parts.keys() - theirs.keys()}
    return sections


def _without(setting: Setting, sections: set[str]) -> Setting:
    """A setting without the method and the keys of some sections."""
    return tuple(
        (k, v) for k, v in setting if k != "method.name" and k.partition(".")[0] not in sections
    )
