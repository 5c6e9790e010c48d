"""Trackers, each offline and read back by its own library; skipped where it is not installed."""

import glob
import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT
from vprompt_jax.config import default_config, resolve
from vprompt_jax.process.errors import UserError
from vprompt_jax.train import metrics, trackers

# Written by two processes in turn, as an interrupted run is; libraries that warn are kept apart.
_WRITE = """
import sys
from pathlib import Path
import numpy as np
from vprompt_jax.train import trackers

name, workdir = sys.argv[1:]
for start in (0, 2):
    writer = trackers.writer(name, Path(workdir), {"optim.epochs": 3}, start)
    writer.write_scalars(start + 1, {"train/loss": 1 / (start + 1)})
    writer.write_images(start + 1, {"examples": np.full((1, 4, 5, 3), 0.5)})
    writer.flush()
    writer.close()
"""


def write(name, folder, monkeypatch):
    pytest.importorskip(name)
    (folder / "run").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", _WRITE, name, str(folder / "run")],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_mlflow_has_one_run_with_all_steps(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    write("mlflow", tmp_path, monkeypatch)
    (path,) = glob.glob(str(tmp_path / "store" / "*" / "*" / "metrics" / "train" / "loss"))
    rows = [line.split() for line in Path(path).read_text().splitlines()]
    assert [(float(value), int(step)) for _, value, step in rows] == [(1.0, 1), (1 / 3, 3)]
    (params,) = glob.glob(str(tmp_path / "store" / "*" / "*" / "params" / "optim.epochs"))
    assert Path(params).read_text() == "3"
    pictures = glob.glob(str(tmp_path / "store" / "**" / "step*.png"), recursive=True)
    assert len(pictures) == 2


def log_records(content):
    """The records of a log in LevelDB's format, behind the seven bytes that W&B begins it with."""
    at, parts = 7, []
    while at + 7 <= len(content):
        if 2**15 - at % 2**15 < 7:  # a block's end has no room for a header
            at += 2**15 - at % 2**15
            continue
        size, kind = struct.unpack("<HB", content[at + 4 : at + 7])
        parts.append(content[at + 7 : at + 7 + size])
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield b"".join(parts)
            parts = []


def test_wandb_keeps_every_step_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    write("wandb", tmp_path, monkeypatch)
    from wandb.proto import wandb_internal_pb2

    losses, identities = [], set()
    files = glob.glob(str(tmp_path / "run" / "wandb" / "offline-run-*" / "run-*.wandb"))
    for path in sorted(files):
        for data in log_records(Path(path).read_bytes()):
            record = wandb_internal_pb2.Record.FromString(data)
            identities |= {record.run.run_id} - {""}
            for item in record.history.item:
                if (item.key or "/".join(item.nested_key)) == "train/loss":
                    losses.append(json.loads(item.value_json))
    np.testing.assert_allclose(losses, [1.0, 1 / 3])
    assert identities == {trackers._identity(tmp_path / "run")}


def test_a_tracker_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    config = default_config()
    config.log.tracker = "wandb"
    with pytest.raises(UserError, match=r'pip install "vprompt_jax\[wandb\]"'):
        metrics.make_writer(tmp_path, 0, resolve(config))
