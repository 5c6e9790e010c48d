"""Freed memory stays with a process that computes on CPUs, and only there."""

import ctypes
import importlib.metadata
import importlib.util
import os
import platform
import subprocess
import sys

import pytest

from vprompt_jax.process import memory

pytestmark = pytest.mark.fast

GLIBC = platform.libc_ver()[0] == "glibc"

# 200 MiB are taken, written to and given back by a thread, which would have a heap of its own.
_PAGES_KEPT = """
import concurrent.futures, ctypes
from vprompt_jax.process import program
program.set_up_process()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
pages = lambda: int(open("/proc/self/statm").read().split()[1])
def use():
    block = libc.malloc(200 << 20)
    ctypes.memset(block, 1, 200 << 20)
    libc.free(block)
before = pages()
with concurrent.futures.ThreadPoolExecutor(1) as pool:
    pool.submit(use).result()
    print(pages() - before)
"""


@pytest.fixture(autouse=True)
def nothing_is_set(monkeypatch):
    """No variable of glibc's own decides."""
    for name in [n for n in os.environ if n.startswith(("MALLOC_", "GLIBC_TUNABLES"))]:
        monkeypatch.delenv(name)


@pytest.fixture
def calls(monkeypatch):
    """What mallopt was asked for; nothing is set."""
    made = {}

    class Libc:
        @staticmethod
        def mallopt(parameter, value):
            made[parameter] = value
            return 1

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Libc)
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.36"))
    return made


@pytest.mark.skipif(not GLIBC or sys.platform != "linux", reason="needs glibc on Linux")
@pytest.mark.parametrize(
    ("env", "kept"),
    [({"JAX_PLATFORMS": "cpu"}, True), ({"JAX_PLATFORMS": "cpu", "MALLOC_ARENA_MAX": "8"}, False)],
)
def test_memory_that_a_thread_gave_back_stays(env, kept):
    done = subprocess.run(
        [sys.executable, "-c", _PAGES_KEPT],
        env={**os.environ, **env}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    mebibytes = int(done.stdout) * os.sysconf("SC_PAGE_SIZE") / 2**20
    assert (mebibytes > 190) == kept, mebibytes


def test_the_users_own_settings_rule(calls, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    assert not memory.keep_freed()
    assert not calls


@pytest.mark.parametrize(
    ("platforms", "plugins", "expected"),
    [
        ("cpu", ["cuda13"], True),  # told to compute on the CPU
        ("cuda,cpu", [], False),
        ("", ["cuda13"], False),
        ("", [], True),
    ],
)
def test_an_accelerators_host_is_left_alone(calls, monkeypatch, platforms, plugins, expected):
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: plugins)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert memory.keep_freed() == expected
    # malloc.h: M_TRIM_THRESHOLD -1, M_MMAP_MAX -4, M_ARENA_MAX -8
    assert calls == ({-1: -1, -4: 0, -8: 1} if expected else {})


def test_a_tpus_library_or_an_installed_plugin_counts(calls, monkeypatch, tmp_path):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [])
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: name == "libtpu")
        assert not memory.keep_freed()
    (tmp_path / "jax_plugins" / "some").mkdir(parents=True)
    (tmp_path / "jax_plugins" / "some" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert not memory.keep_freed()
    assert not calls


def test_another_c_library_is_left_alone(calls, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not memory.keep_freed()
    assert not calls
