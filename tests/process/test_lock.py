"""A folder is held by one process at a time, and by none that is gone."""

import errno
import os
import signal
import socket
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from vprompt_jax.process import lock
from vprompt_jax.process.errors import UserError

HOLDER = """
import sys, time
from pathlib import Path
from vprompt_jax.process.lock import FolderLock
held = FolderLock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""


def test_the_second_is_refused_and_told_who_holds_it(tmp_path):
    held = lock.FolderLock(tmp_path)
    before = (tmp_path / ".lock").read_text()
    with pytest.raises(UserError) as caught:
        lock.FolderLock(tmp_path)
    assert f"process {os.getpid()} on {socket.gethostname()}" in str(caught.value)
    assert "choose another --workdir" in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == [".lock"]
    assert (tmp_path / ".lock").read_text() == before
    held.release()
    assert not list(tmp_path.iterdir())
    lock.FolderLock(tmp_path).release()


def test_death_releases_it(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"process {holder.pid} on "):
            lock.FolderLock(tmp_path)
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    assert (tmp_path / ".lock").exists()  # says nothing any more
    held = lock.FolderLock(tmp_path)
    assert lock.read(tmp_path)["process"] == os.getpid()
    held.release()


def test_a_lock_on_a_deleted_file_does_not_count(tmp_path, monkeypatch):
    """The holder may delete the file after the next one has opened it."""
    flock = lock.fcntl.flock
    opened = []

    def flock_late(file, operation):
        if not opened:
            (tmp_path / ".lock").unlink()  # what the holder does between opening and locking
        opened.append(file)
        flock(file, operation)

    monkeypatch.setattr(lock.fcntl, "flock", flock_late)
    held = lock.FolderLock(tmp_path)
    assert len(opened) == 2
    assert lock.read(tmp_path)["token"] == held.token
    held.release()


def test_a_file_system_without_locks_is_named_and_used(tmp_path, monkeypatch, capsys):
    def flock(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    held = lock.FolderLock(tmp_path)
    assert "file system without locks (No locks available)" in capsys.readouterr().err
    assert lock.read(tmp_path)["token"] == held.token
    held.release()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "7"])
def test_a_file_that_says_nothing(tmp_path, text):
    (tmp_path / ".lock").write_text(text)
    assert lock.read(tmp_path) is None
