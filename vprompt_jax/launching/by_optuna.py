"""Trials of a search that Optuna proposes and, if the config asks for it, prunes."""

import time
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from vprompt_jax.config.space import Axis, with_values
from vprompt_jax.launching import trials as trials_lib
from vprompt_jax.launching.trials import Trial, tried
from vprompt_jax.process.errors import InUse, Pruned, UserError
from vprompt_jax.process.lock import is_held

_STALE = 60.0  # seconds after which a trial that nobody works on counts as given up


def trials(config: ConfigDict, axes: list[Axis], folder: Path) -> list[Trial]:
    """Trials as Optuna's TPE proposes them; each process gets the next one.

    A trial that was begun and that nobody works on any more is proposed again, and goes on from its
    newest save.
    """
    try:
        import optuna
    except ImportError as error:
        raise UserError(
            'config.search.strategy=optuna needs Optuna: pip install "vprompt_jax[optuna]"'
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    states = optuna.trial.TrialState
    study = optuna.create_study(
        study_name="search",
        storage=_storage(optuna, config.search.storage, folder),
        direction="maximize",
        pruner=optuna.pruners.MedianPruner(),
        load_if_exists=True,
    )
    space = repr(axes)
    if study.user_attrs.setdefault("space", space) != space:
        raise UserError(
            f"{folder} holds trials of another config.search.space: choose another --workdir, or "
            "undo the change"
        )
    study.set_user_attr("space", space)

    def values_of(trial: Any) -> dict[str, Any]:
        return {axis.name: _suggested(trial, axis) for axis in axes}

    while True:
        _give_up_stale(study, states.RUNNING, states.FAIL, folder)
        ended = study.get_trials(states=(states.COMPLETE, states.PRUNED))
        running = study.get_trials(states=(states.RUNNING,))
        if len(ended) >= config.search.trials:
            break
        if len(ended) + len(running) >= config.search.trials:
            time.sleep(trials_lib.WAIT)
            continue
        # A sampler per trial: one that goes on after an interruption proposes what it would have.
        study.sampler = optuna.samplers.TPESampler(seed=config.seed + len(study.trials))
        trial = study.ask()
        values = values_of(trial)
        trial.set_user_attr("folder", f"trial-{with_values(config, values).fingerprint}")

        def watch(step: int, accuracy: float, trial: Any = trial) -> None:
            trial.report(accuracy, step)
            if trial.should_prune():
                raise Pruned

        try:
            outcome = tried(config, values, folder, watch if config.search.prune else None)
        except InUse:
            study.tell(trial, state=states.FAIL)
            time.sleep(trials_lib.WAIT)
            continue
        if outcome.accuracy is None:
            study.tell(trial, state=states.PRUNED)
        else:
            study.tell(trial, outcome.accuracy)
    return [tried(config, values_of(trial), folder) for trial in ended]


def _suggested(trial: Any, axis: Axis) -> Any:
    """An axis' value in a trial that is asked for, or that has ended."""
    if axis.kind == "choice":  # by its number, since Optuna takes no tuples
        of_choice = getattr(trial, "suggest_categorical", None)
        places = range(len(axis.values))
        place = of_choice(axis.name, places) if of_choice else trial.params[axis.name]
        return axis.values[place]
    if not hasattr(trial, "suggest_float"):
        return trial.params[axis.name]
    low, high = axis.values
    if axis.kind == "int":
        return trial.suggest_int(axis.name, low, high)
    return trial.suggest_float(axis.name, low, high, log=axis.kind == "log")


def _storage(optuna: Any, kind: str, folder: Path) -> Any:
    """SQLite for processes of one machine; the journal for machines that share a file system."""
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "sqlite":
        return f"sqlite:///{(folder / 'optuna.db').resolve()}"
    from optuna.storages.journal import JournalFileBackend

    return optuna.storages.JournalStorage(JournalFileBackend(str(folder / "optuna.journal")))


def _give_up_stale(study: Any, running: Any, failed: Any, folder: Path) -> None:
    """Proposes trials again whose process has ended without saying so."""
    for trial in study.get_trials(states=(running,)):
        age = time.time() - trial.datetime_start.timestamp()
        name = trial.user_attrs.get("folder")
        if age > _STALE and not (name and is_held(folder / name)):
            study.tell(trial.number, state=failed)
            study.enqueue_trial(trial.params)
