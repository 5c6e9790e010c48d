"""What a user can do something about is one message and a non-zero status; the rest a traceback."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from tests.conftest import ROOT
from vprompt_jax.process import paths, program
from vprompt_jax.process.errors import Interrupted, UserError


def ended(capsys, error, **options) -> tuple[str, int]:
    """The message and the status that an exception ends in."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(SystemExit) as caught, program.user_errors(**options):
            raise error
    finally:
        signal.signal(signal.SIGINT, handler)
    return capsys.readouterr().err, caught.value.code


def memory_error() -> Exception:
    return jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 7 bytes.\nmore")


@pytest.mark.parametrize(
    "error, message, status",
    [
        (UserError("mend it"), "error: mend it", 1),
        (Interrupted("stopped"), "stopped", 143),
        (KeyboardInterrupt(), "interrupted; the same command goes on", 130),
        (OSError(errno.ENOSPC, "No space left on device", "f"), "error: no space left", 1),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "f"), "error: no space left", 1),
        (OSError(errno.EROFS, "Read-only file system", "d/f"), "error: d/f: Read-only file", 1),
        (PermissionError(errno.EACCES, "Permission denied", "d"), "choose a place that you may", 1),
        (FileExistsError(errno.EEXIST, "File exists", "out"), "error: out: it is a file", 1),
        (FileNotFoundError(errno.ENOENT, "No such file", "gone"), "error: gone: No such file", 1),
        (OSError("only a text"), "error: only a text", 1),
        (MemoryError("cannot allocate 9 TiB"), "out of memory (cannot allocate 9 TiB): so", 1),
        (memory_error(), "error: out of memory (RESOURCE_EXHAUSTED: Out of memory allocating 7", 1),
        (RuntimeError("Could not determine home directory."), "set HOME", 1),
    ],
)  # fmt: skip
def test_one_line(capsys, error, message, status):
    text, code = ended(capsys, error, less_memory="so")
    assert message in text
    assert code == status
    assert "Traceback" not in text
    assert text.count("\n") == 1


def test_a_lack_of_memory_says_what_helps(capsys):
    text, _ = ended(capsys, memory_error(), less_memory="lower --batch_size")
    assert text.rstrip().endswith(": lower --batch_size")


def test_developers_see_the_traceback(capsys, monkeypatch):
    monkeypatch.setenv("VPROMPT_TRACEBACK", "1")
    text, code = ended(capsys, UserError("mend it"))
    assert "Traceback" in text
    assert text.endswith("error: mend it\n")
    assert code == 1


@pytest.mark.parametrize("error", [KeyError("x"), AssertionError("y"), RuntimeError("z")])
def test_a_defect_keeps_its_traceback(error):
    with pytest.raises(type(error)), program.user_errors():
        raise error


def test_a_full_disk_of_tensorboard(capsys):
    tf = pytest.importorskip("tensorflow")
    error = tf.errors.ResourceExhaustedError(None, None, "events; No space left on device")
    text, code = ended(capsys, error)
    assert text.startswith("error: no space left on the disk: events; No space left")
    assert code == 1
    text, _ = ended(capsys, tf.errors.PermissionDeniedError(None, None, "events; Permission"))
    assert text.startswith("error: TensorFlow cannot read or write a file: events")


def run(code: str, **options) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
    )  # fmt: skip


def test_a_second_ctrl_c_is_quiet():
    """The second arrives while the interpreter waits for a thread, as Orbax's may take long."""
    process = run(
        "import signal, threading, time\n"
        "from vprompt_jax.process import program\n"
        # A shell's background jobs, and what they start, ignore Ctrl-C.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "threading.Thread(target=time.sleep, args=(60,)).start()\n"
        "with program.user_errors():\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    first = process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=20)
    assert first.startswith("interrupted; ")
    assert rest == ""
    assert process.returncode == 130


def test_a_closed_pipe_is_quiet():
    process = run(
        "from vprompt_jax.process import program\n"
        "with program.user_errors():\n"
        "    for _ in range(100_000): print('a line')\n"
    )
    process.stdout.readline()
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == ""
    assert process.wait(timeout=20) == 128 + signal.SIGPIPE


def test_names_that_are_no_text_are_printed():
    process = run(
        "import os\n"
        "from vprompt_jax.process import program\n"
        "with program.user_errors():\n"
        "    print(os.fsdecode(b'caf\\xe9.jpg'))\n",
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )
    out, err = process.communicate(timeout=60)
    assert out == "caf\\udce9.jpg\n", err


def test_without_a_home_folder(monkeypatch):
    def home():
        raise RuntimeError("Could not determine home directory.")

    for name in ("VPROMPT_CACHE", "XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", home)
    monkeypatch.setattr(program.memory, "keep_freed", lambda: False)
    with pytest.raises(UserError, match="set VPROMPT_CACHE"):
        paths.cache_folder()
    program.set_up_process()  # goes on without compiled programs of earlier processes
    monkeypatch.setenv("VPROMPT_CACHE", "/there")
    assert paths.cache_folder() == Path("/there")
