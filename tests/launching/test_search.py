"""Searches: spaces, strategies, resuming, sharing, pruning; the choice is made on val."""

import csv
import json
import math
import sys
import time
from collections import Counter

import numpy as np
import optuna
import pyarrow.parquet as pq
import pytest

from tests.conftest import small_config
from vprompt_jax.config import default_config, grid
from vprompt_jax.config import sweep as sweeps
from vprompt_jax.config.space import axes_of
from vprompt_jax.launching import launch, search
from vprompt_jax.process.errors import Diverged, InUse, Pruned, UserError
from vprompt_jax.process.lock import FolderLock, is_held
from vprompt_jax.train import fit, run

RATES = ("vpt.learning_rate head.learning_rate", "choice", 0.1, 1.0, 10.0)
DECAYS = ("optim.weight_decay", "choice", 0.0, 0.01)


def config(strategy="grid", space=(RATES, DECAYS), **keys):
    c = default_config()
    c.name, c.method.name = "s", "vpt_shallow"
    c.model.checkpoint = "mini-clip-vit"
    c.search.strategy, c.search.space = strategy, space
    c.search.update(keys)
    return c


class Trainer:
    """In the place of `train.run.fit`: val is best at a rate of 1, test is best far from there."""

    def __init__(self, monkeypatch):
        self.calls = Counter()
        self.errors = {}  # by rate, the errors of the next calls
        monkeypatch.setattr(run, "fit", self)
        monkeypatch.setattr("vprompt_jax.launching.trials.WAIT", 0.0)

    def __call__(self, one, workdir, watch=None):
        rate = one.parts["vpt"].learning_rate
        self.calls[rate] += 1
        workdir.mkdir(parents=True, exist_ok=True)
        if self.errors.get(rate):
            raise self.errors[rate].pop(0)
        accuracy = 1 / (1 + abs(math.log10(rate))) - one.optim.weight_decay
        for step in (1, 2):
            if watch is not None:
                watch(step, accuracy * step / 2)
        return {"val": {"accuracy": accuracy}, "test_accuracy": 1 - accuracy}


@pytest.fixture
def trainer(monkeypatch):
    return Trainer(monkeypatch)


@pytest.mark.fast
@pytest.mark.parametrize("keys, message", [
    ({"strategy": "best"}, "strategy='best': choose grid, random, optuna"),
    ({"strategy": "random"}, "strategy=random needs config.search.trials"),
    ({"storage": "redis"}, "storage='redis': choose sqlite, journal"),
    ({"prune": True}, "prune works with config.search.strategy=optuna"),
    ({"space": (("optim.weight_decay", "log", 1e-4, 1e-2),)}, "a grid needs choices, not"),
    ({"space": (("optim.weight_decay", "normal", 0.0, 1.0),)}, "kinds are choice"),
    ({"space": (("optim.weight_decay", "uniform", 1.0, 0.0),)}, "kinds are choice"),
    ({"space": (("optim.weight_decay", "log", 0.0, 1.0),)}, "kinds are choice"),
    ({"space": (("vpt.tokens", "int", 1.5, 3.0),)}, "kinds are choice"),
    ({"space": (("vpt.tokens",),)}, "kinds are choice"),
    ({"space": (("optim.wait_decay", "choice", 0.0),)}, "did you mean config.optim.weight_decay"),
    ({"space": (("vpt.learning_rat", "choice", 0.0),)}, "unknown key vpt.learning_rat"),
    ({"space": (("lora.alpha ap.gate", "choice", 1.0),)}, "no run uses lora.alpha ap.gate"),
    ({"space": (("optim.weight_decay", "choice", 0.0, -1.0),)}, "must be between 0"),
])  # fmt: skip
def test_mistaken_searches_are_refused_before_anything_runs(keys, message, tmp_path, trainer):
    c = config(**{"strategy": "grid", **keys})
    with pytest.raises(UserError, match=message):
        search.chosen(c, tmp_path)
    assert not trainer.calls


@pytest.mark.fast
def test_the_choice_is_made_on_val_and_only_there(tmp_path, trainer):
    c = config()
    c.protocol = "paper"
    with pytest.raises(UserError, match=r"chooses on val: set config\.protocol=val"):
        search.chosen(c, tmp_path)
    made = search.chosen(config(retrain=True), tmp_path)
    assert (made.vpt.learning_rate, made.head.learning_rate) == (1.0, None)  # no linear head
    assert (made.optim.weight_decay, made.protocol) == (0.0, "paper")
    assert made.search.strategy == "none"
    kept = json.loads((tmp_path / "search" / "chosen.json").read_text())
    assert kept["values"] == {"vpt.learning_rate": 1.0, "optim.weight_decay": 0.0}
    assert (kept["val_accuracy"], kept["trials"]) == (1.0, 6)
    table = (tmp_path / "search" / "trials.csv").read_text()
    assert "test" not in table
    rows = list(csv.DictReader(table.splitlines()))
    accuracies = [float(row["val_accuracy"]) for row in rows]
    assert accuracies == sorted(accuracies, reverse=True)
    assert rows[0]["vpt.learning_rate"] == "1.0"


@pytest.mark.fast
def test_of_equals_the_first_is_chosen(tmp_path, trainer):
    made = search.chosen(config(space=(("vpt.learning_rate", "choice", 0.1, 10.0),)), tmp_path)
    assert made.vpt.learning_rate == 0.1


@pytest.mark.fast
def test_runs_that_differ_in_the_seed_share_a_search(tmp_path, trainer):
    c = config()
    c.data.few_shot = 4
    c.sweep = grid({"vpt.tokens": (1, 2)}, (3, 4), ("data.shot_seed",))
    made = search.chosen(c, tmp_path)
    assert sum(trainer.calls.values()) == 2 * 6
    runs = sweeps.expand(made)
    assert [one.vpt.learning_rate for one in runs.values()] == [1.0] * 4
    assert [(one.seed, one.data.shot_seed) for one in runs.values()] == [(3, 3), (4, 4)] * 2
    names = sorted(p.name for p in (tmp_path / "search").iterdir())
    assert names == ["tokens_1-s3", "tokens_2-s3"]
    one = search.chosen(c, tmp_path / "other", "tokens_2-s4")
    assert sum(trainer.calls.values()) == 3 * 6
    assert sweeps.expand(one)["tokens_2-s4"].vpt.learning_rate == 1.0


@pytest.mark.fast
def test_random_trials_are_the_seeds_and_more_add_to_fewer():
    space = (
        ("vpt.learning_rate", "log", 1e-3, 10.0),
        ("vpt.tokens", "int", 2, 4),
        ("optim.label_smoothing", "uniform", 0.1, 0.2),
        ("ap.positions", "choice", (0,), (1,)),
    )

    def drawn(trials, seed=0):
        c = config("random", space, trials=trials)
        c.ap.positions, c.seed = (0,), seed
        return list(search._random(c, axes_of(c)))

    many = drawn(300)
    assert many[:5] == drawn(5)
    assert drawn(5, seed=1) != many[:5]
    rates = np.log10([values["vpt.learning_rate"] for values in many])
    assert rates.min() > -3
    assert rates.max() < 1
    assert abs(np.median(rates) + 1) < 0.25  # half of them below the middle of the exponents
    assert {values["vpt.tokens"] for values in many} == {2, 3, 4}
    assert {values["ap.positions"] for values in many} == {(0,), (1,)}
    smoothing = [values["optim.label_smoothing"] for values in many]
    assert 0.1 <= min(smoothing) < 0.11
    assert 0.19 < max(smoothing) <= 0.2


@pytest.mark.fast
def test_an_interrupted_search_repeats_no_finished_trial(tmp_path, trainer):
    trainer.errors = {1.0: [KeyboardInterrupt()]}
    c = config(space=(RATES,))
    with pytest.raises(KeyboardInterrupt):
        search.chosen(c, tmp_path)
    assert trainer.calls == {0.1: 1, 1.0: 1}
    assert search.chosen(c, tmp_path).vpt.learning_rate == 1.0
    assert trainer.calls == {0.1: 1, 1.0: 2, 10.0: 1}
    search.chosen(c, tmp_path)
    assert sum(trainer.calls.values()) == 4


@pytest.mark.fast
def test_trials_that_diverge_count_and_those_of_others_are_waited_for(tmp_path, trainer):
    trainer.errors = {1.0: [Diverged("not finite")], 0.1: [InUse("a"), InUse("b")]}
    c = config(space=(RATES,))
    assert search.chosen(c, tmp_path).vpt.learning_rate == 0.1
    assert trainer.calls == {0.1: 3, 1.0: 1, 10.0: 1}
    rows = list(csv.DictReader((tmp_path / "search" / "trials.csv").read_text().splitlines()))
    assert [row["state"] for row in rows] == ["finished", "finished", "diverged"]
    only = config(space=(("vpt.learning_rate", "choice", 1.0),))
    with pytest.raises(UserError, match="no trial finished"):
        search.chosen(only, tmp_path)


@pytest.mark.fast
def test_a_folder_says_whether_it_is_held(tmp_path):
    assert not is_held(tmp_path)
    lock = FolderLock(tmp_path)
    assert is_held(tmp_path)
    with pytest.raises(InUse, match="in use"):
        FolderLock(tmp_path)
    lock.release()
    assert not is_held(tmp_path)


@pytest.mark.fast
def test_without_optuna_one_line_says_what_to_install(tmp_path, trainer, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    c = config("optuna", trials=3)
    with pytest.raises(UserError, match=r'needs Optuna: pip install "vprompt_jax\[optuna\]"'):
        search.chosen(c, tmp_path)


SPACE = (
    ("vpt.learning_rate", "log", 1e-3, 1e3),
    ("vpt.tokens", "int", 1, 4),
    ("optim.weight_decay", "choice", 0.0, 0.5),
    ("optim.label_smoothing", "uniform", 0.0, 0.1),
)


@pytest.mark.parametrize("storage", ["sqlite", "journal"])
def test_optuna_proposes_and_goes_on(tmp_path, trainer, storage):
    c = config("optuna", SPACE, trials=25, storage=storage)
    whole = search.chosen(c, tmp_path / "whole")
    assert sum(trainer.calls.values()) == 25
    assert 0.1 < whole.vpt.learning_rate < 10
    assert whole.optim.weight_decay == 0.0
    search.chosen(c, tmp_path / "whole")
    assert sum(trainer.calls.values()) == 25  # nothing is repeated
    kept = json.loads((tmp_path / "whole" / "search" / "chosen.json").read_text())
    first = config("optuna", SPACE, trials=9, storage=storage)
    search.chosen(first, tmp_path / "parts")
    search.chosen(c, tmp_path / "parts")
    again = json.loads((tmp_path / "parts" / "search" / "chosen.json").read_text())
    assert again["values"] == kept["values"]  # as if it had not been stopped
    assert sum(trainer.calls.values()) == 50


def test_trials_of_another_space_are_not_mixed(tmp_path, trainer):
    search.chosen(config("optuna", SPACE[:1], trials=2), tmp_path)
    with pytest.raises(UserError, match=r"holds trials of another config\.search\.space"):
        search.chosen(config("optuna", SPACE[:2], trials=4), tmp_path)


def test_a_trial_of_optuna_that_was_interrupted_goes_on(tmp_path, trainer, monkeypatch):
    from vprompt_jax.launching import by_optuna

    c = config("optuna", SPACE[:1], trials=3)
    seen = []
    call = Trainer.__call__

    def stopping(self, one, workdir, watch=None):
        seen.append((workdir.name, one.parts["vpt"].learning_rate))
        if len(seen) == 2:
            raise KeyboardInterrupt
        return call(self, one, workdir, watch)

    monkeypatch.setattr(Trainer, "__call__", stopping)
    with pytest.raises(KeyboardInterrupt):
        search.chosen(c, tmp_path)
    monkeypatch.setattr(by_optuna, "_STALE", -1.0)
    search.chosen(c, tmp_path)
    assert seen[2] == seen[1]  # the same values in the same folder
    assert len(seen) == 4
    rows = (tmp_path / "search" / "trials.csv").read_text().splitlines()
    assert len(rows) == 1 + 3


def test_a_trial_in_work_elsewhere_is_left_alone(tmp_path, trainer, monkeypatch):
    from vprompt_jax.launching import by_optuna

    monkeypatch.setattr(by_optuna, "_STALE", -1.0)
    folder = tmp_path / "search"
    (folder / "trial-x").mkdir(parents=True)
    lock = FolderLock(folder / "trial-x")
    study = optuna.create_study(
        study_name="search", storage=f"sqlite:///{folder / 'optuna.db'}", direction="maximize"
    )
    other = study.ask()
    other.suggest_float("vpt.learning_rate", 1e-3, 1e3, log=True)
    other.set_user_attr("folder", "trial-x")
    waits = []

    def wait(seconds):
        waits.append(seconds)
        if len(waits) == 3:
            study.tell(other, 0.0)  # the other process has ended its trial
            lock.release()
            (folder / "trial-x").rmdir()

    monkeypatch.setattr(time, "sleep", wait)
    search.chosen(config("optuna", SPACE[:1], trials=3), tmp_path)
    assert len(waits) == 3
    assert len((folder / "trials.csv").read_text().splitlines()) == 1 + 3


def test_trials_that_others_outdo_are_pruned(tmp_path, trainer):
    search.chosen(config("optuna", SPACE[:1], trials=25, prune=True), tmp_path)
    rows = list(csv.DictReader((tmp_path / "search" / "trials.csv").read_text().splitlines()))
    states = Counter(row["state"] for row in rows)
    assert states["finished"] >= 5
    assert states["pruned"] >= 1
    pruned = [row for row in rows if row["state"] == "pruned"]
    assert all(row["val_accuracy"] == "" for row in pruned)
    before = sum(trainer.calls.values())
    search.chosen(config("optuna", SPACE[:1], trials=25, prune=True), tmp_path)
    assert sum(trainer.calls.values()) == before


def test_a_watched_run_ends_where_it_is_told_and_can_go_on(tiny_path, tmp_path):
    """On real steps: what is pruned has no result; without the watcher it goes on to its end."""
    c = small_config(tiny_path)
    c.method.name, c.data.few_shot, c.optim.batch_size = "vp", 8, 40
    c.optim.epochs, c.optim.warmup_steps = 3, 1
    told = []

    def watch(step, accuracy):
        told.append((step, accuracy))
        if len(told) == 2:
            raise Pruned

    with pytest.raises(Pruned):
        fit(c, tmp_path / "a", watch=watch)
    assert not (tmp_path / "a" / "result.json").exists()
    lines = [json.loads(x) for x in (tmp_path / "a" / "metrics.jsonl").read_text().splitlines()]
    assert [(x["step"], x["val/accuracy"]) for x in lines if "val/accuracy" in x] == told
    whole, rest = fit(c, tmp_path / "b"), fit(c, tmp_path / "a")
    assert rest["test_accuracy"] == whole["test_accuracy"]
    assert rest["val"]["accuracy"] == whole["val"]["accuracy"]


def test_a_sweep_searches_on_real_runs_first(tiny_path, tmp_path, monkeypatch, capsys):
    c = small_config(tiny_path)
    c.method.name, c.data.few_shot, c.optim.batch_size = "linear", 8, 40
    c.optim.epochs, c.optim.warmup_steps = 2, 1
    c.search.strategy, c.search.retrain = "grid", True
    c.search.space = (("head.learning_rate", "choice", 1e-6, 10.0),)
    c.sweep = grid({"method.name": ("linear",)}, (0, 1))
    monkeypatch.setattr("vprompt_jax.report.write", lambda *a, **k: [])
    launch.launch(c, str(tmp_path))
    kept = json.loads((tmp_path / "search" / "linear-s0" / "chosen.json").read_text())
    rows = pq.read_table(tmp_path / "search" / "linear-s0" / kept["folder"] / "predictions.parquet")
    on_val = [r for r in rows.to_pylist() if r["split"] == "val"]
    assert kept["val_accuracy"] == sum(r["label"] == r["predicted"] for r in on_val) / len(on_val)
    others = [json.loads(p.read_text())["val_accuracy"] for p in tmp_path.rglob("trial.json")]
    assert kept["val_accuracy"] == max(others)
    assert len(others) == 2
    for seed in (0, 1):
        run = json.loads((tmp_path / f"linear-s{seed}" / "config.json").read_text())
        assert run["head"]["learning_rate"] == kept["values"]["head.learning_rate"]
        assert (run["protocol"], run["seed"]) == ("paper", seed)
    assert "chosen on val, of 2 trials" in capsys.readouterr().out
