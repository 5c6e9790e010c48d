"""A run's folder: whose it is, who works in it, and which files the run was made from.

`config.json` holds the config as the user gave it. `inputs.json` holds what that says only in one
place at one time: where the named files were, and SHA-256 sums of weights and data. A path counts
for nothing where the sums agree.
"""

import contextlib
import dataclasses
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from vprompt_jax.config import Config, resolve
from vprompt_jax.config import files as named_files
from vprompt_jax.config.config import differences
from vprompt_jax.process import cluster, lock
from vprompt_jax.process.errors import UserError
from vprompt_jax.process.files import read_json, replace
from vprompt_jax.train import cache, result

_SPACE_NEEDED = 100 * 2**20  # bytes
# Seconds in which a file must show on other machines. NFS keeps what it knows of a folder for up to
# a minute, but asks again when the folder is listed.
_VISIBLE_WITHIN = 20.0
_AGAIN = "delete it and give the run's command again, which goes on from the newest checkpoint"


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a run was made from.

    Attributes:
      files: paths by config key, absolute, of the files and folders that the config names.
      sums: SHA-256 by "weights" and "data"; {} for a run of an earlier version.
    """

    files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    sums: Mapping[str, str] = dataclasses.field(default_factory=dict)


def read_inputs(workdir: Path) -> Inputs:
    """The contents of `inputs.json`.

    Raises:
      UserError: if it is damaged.
    """
    path = workdir / "inputs.json"
    if not path.is_file():
        return Inputs()
    stored = read_json(path, "delete it: paths are then those of config.json, as they were typed")
    try:
        files = {str(key): str(workdir / value) for key, value in stored["files"].items()}
        return Inputs(files, {str(name): str(text) for name, text in stored["sums"].items()})
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error!r}): delete it") from error


def write_inputs(workdir: Path, config: Config, identity: Mapping[str, Any]) -> None:
    """Writes `inputs.json`: paths as absolute ones, or relative to the workdir if inside of it."""
    inside = os.path.abspath(workdir) + os.sep
    files = {key: path.removeprefix(inside) for key, path in named_files.named(config).items()}
    sums = {name: identity[name] for name in ("weights", "data")}
    text = json.dumps({"files": files, "sums": sums}, indent=2, sort_keys=True) + "\n"
    replace(workdir / "inputs.json", text)


def read_config(workdir: Path) -> Config:
    """A run's config, with paths that hold wherever this process was started.

    Raises:
      UserError: if a file of the run is damaged, or this version cannot read it.
    """
    config = resolve(read_json(workdir / "config.json", _AGAIN))
    return named_files.naming(config, read_inputs(workdir).files)


def finished(
    config: Config, workdir: Path, identity: Callable[[], Mapping[str, Any]]
) -> dict[str, Any] | None:
    """The result of a run that has finished; every process has to call it.

    Args:
      config: of the command.
      workdir: of the run.
      identity: loads weights and data, and gives their SHA-256 sums; called only where a finished
        run names other files.

    Returns:
      The contents of `result.json`; None if there is anything left to do.

    Raises:
      UserError: if the workdir is another config's, or its files are damaged.
    """
    stored = cluster.by_first(lambda: _stored(config, workdir))
    if stored["result"] is None or not stored["moved"]:
        return stored["result"]
    now = identity()
    old = stored["sums"]
    if changed := [f"{n}: {old[n][:12]}... -> {now[n][:12]}... (SHA-256)" for n in old
                   if now[n] != old[n]]:  # fmt: skip
        raise _of_another_config(workdir, [*stored["moved"], *changed])
    if cluster.is_first():
        with contextlib.suppress(OSError):  # a finished run may lie where no one can write
            write_inputs(workdir, config, now)
    return stored["result"]


def _stored(config: Config, workdir: Path) -> dict[str, Any]:
    """What the workdir holds: "result", lines of "moved" files, and "sums" to check them by."""
    empty: dict[str, Any] = {"result": None, "moved": [], "sums": {}}
    path = workdir / "config.json"
    try:
        if not path.is_file():
            return empty
    except OSError as error:
        raise UserError(f"cannot use the workdir {workdir}: {error}") from error
    typed, inputs = resolve(read_json(path, _AGAIN)), read_inputs(workdir)
    # A relative path that leads nowhere from here means what it meant when the run began.
    files = {k: p for k, p in inputs.files.items() if k not in differences(typed, config)}
    given = named_files.naming(config, files | named_files.named(config))
    changed = differences(named_files.naming(typed, inputs.files), given)
    moved = [line for key, line in changed.items() if key in named_files.path_keys()]
    done = result.read(workdir)
    # While a run is unfinished, its saves are checked against weights and data anyway.
    if len(changed) > len(moved) or (done is not None and moved and not inputs.sums):
        raise _of_another_config(workdir, list(changed.values()))
    return {"result": done, "moved": moved, "sums": dict(inputs.sums)}


def _of_another_config(workdir: Path, lines: list[str]) -> UserError:
    listed = "\n  ".join(lines)
    return UserError(
        f"{workdir} belongs to a run with another config:\n  {listed}\n"
        "choose another --workdir, or undo the change to go on with that run"
    )


@contextlib.contextmanager
def in_use(workdir: Path) -> Iterator[None]:
    """Makes a workdir and holds it: no other command can work in it meanwhile.

    Process 0 holds it for all processes of a run; every one of them has to enter. A workdir that
    is empty when it is left is removed, so that a run that could not start leaves no trace.

    Raises:
      UserError: if another command holds it, it cannot be written, or it is not one folder for all
        processes.
    """
    held: list[lock.FolderLock] = []

    def take() -> str:
        held.append(_taken(workdir))
        return held[0].token

    try:
        _check_shared(workdir, cluster.by_first(take))
        yield
    finally:
        if held:
            held[0].release()
            with contextlib.suppress(OSError):
                workdir.rmdir()  # only if empty


def _taken(workdir: Path) -> lock.FolderLock:
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        held = lock.FolderLock(workdir)
    except OSError as error:
        raise UserError(
            f"cannot use the workdir {workdir}: {error.strerror or error}: name a folder that you "
            "may write to by --workdir"
        ) from error
    try:
        cache.remove_leftovers(workdir)  # before free space is measured
        free = shutil.disk_usage(workdir).free
        if free < _SPACE_NEEDED:
            raise UserError(
                f"only {free >> 20} MiB free at {workdir}: make room, or move --workdir"
            )
    except BaseException:
        held.release()
        with contextlib.suppress(OSError):
            workdir.rmdir()  # only if empty
        raise
    return held


def _check_shared(workdir: Path, token: str) -> None:
    """Makes sure that every process sees the lock of process 0."""
    end = time.monotonic() + _VISIBLE_WITHIN
    while not (seen := _shows(workdir, token)) and time.monotonic() < end:
        time.sleep(0.1)
    machines = cluster.gather([socket.gethostname(), seen])
    if blind := [f"{i} on {host}" for i, (host, sees) in enumerate(machines) if not sees]:
        raise UserError(
            f"the workdir {workdir} of process 0 on {machines[0][0]} is not what process "
            f"{', '.join(blind)} sees there: name a folder that all machines share by --workdir"
        )


def _shows(workdir: Path, token: str) -> bool:
    try:
        if lock.NAME not in os.listdir(workdir):
            return False
    except OSError:
        return False
    holder = lock.read(workdir)
    return holder is not None and holder["token"] == token
