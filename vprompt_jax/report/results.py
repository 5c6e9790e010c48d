"""Gathers finished runs, and finds out in what their settings differ, the seed aside."""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vprompt_jax.config.also import OWN_NEW
from vprompt_jax.config.config import flat
from vprompt_jax.evaluate import ELSEWHERE, NAME
from vprompt_jax.methods import registry
from vprompt_jax.methods.table import combination
from vprompt_jax.process.errors import UserError
from vprompt_jax.process.files import read_json
from vprompt_jax.train.result import read as read_result

# A setting: the values, by config key, in which runs differ.
Setting = tuple[tuple[str, Any], ...]

# Keys that say nothing about what was measured, or are their own column.
_ASIDE = ("seed", "name", "sweep", "data.workers", "log.every_steps", "eval.batch_size",
          "eval.also")  # fmt: skip
# Keys that decide which images a run sees, and in which splits.
_DECIDES_DATA = {
    f"data.{name}"
    for name in (
        "source", "name", "dir", "label", "split", "split_file", "split_seed", "shot_seed",
        "classes", "few_shot", "val_shots", "val_fraction", "test_fraction", "on_bad_image",
    )
}  # fmt: skip
# Keys that must be told apart even if each method has its own value of them.
_ALWAYS = ("protocol", "data.", "model.")


@dataclasses.dataclass(frozen=True)
class Record:
    """One finished run.

    Attributes:
      workdir: where it is.
      result: the contents of `result.json`.
      config: the resolved config by dotted key, with sizes that followed the tower filled in;
        "method.name" names the combination of parts.
      elsewhere: accuracies on what the run was measured on when it had finished, by folder.
    """

    workdir: Path
    result: dict[str, Any]
    config: dict[str, Any]
    elsewhere: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def method(self) -> str:
        """By name, with the parts beyond the method's own (`methods.table.combination`)."""
        return str(self.config["method.name"])

    @property
    def dataset(self) -> str:
        """By name, with the splits where they are not the source's own.

        Runs of one name on other splits are on other datasets.
        """
        marks = []
        if (split := self.config.get("data.split", "official")) != "official":
            marks.append(str(split))
        if self.config.get("data.split_file"):
            marks.append(str(self.config["data.split_file"]))
        if "test" in self.result.get("splits_cut", ()):
            marks.append("test cut by hash")
        name = str(self.result["dataset"])
        return f"{name} ({', '.join(marks)})" if marks else name

    @property
    def accuracy(self) -> float:
        """Of the last step, on test."""
        return self.result["test_accuracy"]

    @property
    def is_base_to_new(self) -> bool:
        """Whether the run is on base classes, and was measured on the new ones."""
        return self.config.get("data.classes") == "base" and OWN_NEW in self.elsewhere

    @property
    def targets(self) -> dict[str, float]:
        """`elsewhere` without the new classes of a base-to-new run."""
        return {
            n: a for n, a in self.elsewhere.items() if not (n == OWN_NEW and self.is_base_to_new)
        }


# Settings with their runs by seed.
Groups = dict[Setting, dict[int, Record]]


def find(paths: Iterable[Path]) -> list[Path]:
    """The runs in folders: a folder that is a run itself, or those directly below it.

    Raises:
      UserError: if a folder is missing or holds no run.
    """

    def is_run(path: Path) -> bool:
        return (path / "config.json").is_file() or (path / "result.json").is_file()

    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            raise UserError(f"no folder {path}: name a run's workdir, or a folder of them")
        inside = [path] if is_run(path) else sorted(p for p in path.iterdir() if is_run(p))
        if not inside:
            raise UserError(f"{path} holds no run, and no folder directly below it does")
        found += inside
    return list(dict.fromkeys(p.resolve() for p in found))


def read(workdir: Path) -> Record:
    """Reads one run.

    Raises:
      UserError: if it has not finished, or its files are damaged.
    """
    result = read_result(workdir)
    if result is None:
        raise UserError(
            f"{workdir} holds no finished run (no result.json): finish it by its command, or "
            "leave it out"
        )
    stored = read_json(
        workdir / "config.json", "delete it and give the run's command again, or leave the run out"
    )
    config = {k: tuple(v) if isinstance(v, list) else v for k, v in flat(stored).items()}
    for key, field in registry.all_fields().items():
        if field.key.fact in result:
            config[key] = result[field.key.fact]
    config["method.name"] = combination(config)
    if result.get("split_file"):  # by content, wherever it lies
        file = result["split_file"]
        config["data.split_file"] = f"{file['name']} {file['sha256'][:8]}"
    return Record(workdir, result, config, _elsewhere(workdir))


def _elsewhere(workdir: Path) -> dict[str, float]:
    """What a run reaches on other test images, by the names of their folders."""
    found = {}
    for path in sorted((workdir / ELSEWHERE).glob(f"*/{NAME}")):
        stored = read_json(path, "delete it and give the run's command again")
        if not isinstance(stored.get("accuracy"), float):
            raise UserError(
                f"{path} is damaged, it has no accuracy: delete it and give the run's command again"
            )
        found[path.parent.name] = stored["accuracy"]
    return found


def gather(workdirs: Iterable[Path], *, by_dataset: bool = False) -> list[Record]:
    """Reads finished runs.

    Args:
      workdirs: of the runs.
      by_dataset: whether different datasets are meant to stand beside each other.

    Raises:
      UserError: if a run has not finished, the datasets differ without being meant to, or runs
        with the same `config.data` had other images or splits.
    """
    records = [read(Path(workdir)) for workdir in workdirs]
    _refuse_other_data(records)
    datasets = sorted({r.dataset for r in records})
    if len(datasets) != 1 and not (by_dataset and datasets):
        raise UserError(
            f"one table holds one dataset, not {', '.join(datasets) or 'none'}: report on each "
            "alone, or ask for a column per dataset (--by_dataset)"
        )
    return records


def _refuse_other_data(records: Sequence[Record]) -> None:
    """Refuses runs whose configs name the same data and whose data differed all the same.

    Results of earlier versions, which may not say what the data were, count as alike.
    """
    seen: dict[tuple[Any, ...], Record] = {}
    for record in records:
        asked = [(k, v) for k, v in sorted(record.config.items()) if k in _DECIDES_DATA]
        for fact, what in (
            ("dataset_fingerprint", "other names, labels or splits"),
            ("dataset_contents", "other images under the same names"),
        ):
            if (now := record.result.get(fact)) is None:
                continue
            of_all = (fact, record.dataset, record.config["protocol"], *asked)
            first = seen.setdefault(of_all, record)
            if (before := first.result[fact]) != now:
                raise UserError(
                    f"{record.workdir} and {first.workdir} are both on {record.dataset}, and had "
                    f"{what} ({fact} {now[:16]}, {before[:16]}): report on each alone, or run one "
                    "again on the data of the other"
                )


def varying(records: Sequence[Record]) -> list[str]:
    """Config keys that tell the records' settings apart, the method's name first.

    What a method brings with it does not count: only a key with several values within one method,
    or one that data, tower or protocol differ in.
    """
    values: dict[tuple[str, str], set[Any]] = {}
    # Images that are chosen anew for every seed are no setting of their own.
    by_seed = all(r.config.get("data.shot_seed") in (None, r.result["seed"]) for r in records)
    aside = (*_ASIDE, "data.shot_seed") if by_seed else _ASIDE
    for record in records:
        for key, value in record.config.items():
            if key not in aside:
                method = "" if key.startswith(_ALWAYS) else record.method
                values.setdefault((key, method), set()).add(value)
    keys = {key for (key, _), seen in values.items() if len(seen) > 1} - {"method.name"}
    sections = ["data", *registry.names()]

    def order(key: str) -> tuple[int, str]:
        section = key.partition(".")[0]
        return (sections.index(section) if section in sections else len(sections), key)

    return ["method.name", *sorted(keys, key=order)]


def group(records: Sequence[Record]) -> Groups:
    """Groups records by setting, in order of the settings.

    Raises:
      UserError: if two runs have the same setting and seed.
    """
    keys = varying(records)
    groups: Groups = {}
    for record in records:
        setting = tuple((k, record.config[k]) for k in keys if k in record.config)
        by_seed = groups.setdefault(setting, {})
        seed = record.result["seed"]
        if seed in by_seed:
            raise UserError(
                f"{record.workdir} and {by_seed[seed].workdir} have the same setting and seed: "
                "leave one out"
            )
        by_seed[seed] = record

    def order(item: tuple[Setting, dict[int, Record]]) -> list[tuple[int, float, str]]:
        # Numbers by size, texts by alphabet, absent values first.
        values = dict(item[0])
        return [
            (0, 0.0, "") if v is None else
            (1, float(v), "") if isinstance(v, int | float) else (2, 0.0, str(v))
            for v in (values.get(k) for k in keys)
        ]  # fmt: skip

    return {s: dict(sorted(g.items())) for s, g in sorted(groups.items(), key=order)}


def accuracies(by_seed: dict[int, Record]) -> np.ndarray:
    """Test accuracies [seeds] of one setting, 0..1."""
    return np.array([r.accuracy for r in by_seed.values()])


def paired(a: dict[int, Record], b: dict[int, Record]) -> np.ndarray:
    """Differences a - b of test accuracy over the seeds that both have."""
    return np.array([a[seed].accuracy - b[seed].accuracy for seed in sorted(a.keys() & b.keys())])


def deviation(values: np.ndarray) -> float:
    """Sample standard deviation; 0 for a single value."""
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0


def spread(values: np.ndarray) -> str:
    """Mean and sample standard deviation in percentage points."""
    if len(values) < 2:
        return f"{100 * values.mean():.1f}"
    return f"{100 * values.mean():.1f} ± {100 * deviation(values):.1f}"
