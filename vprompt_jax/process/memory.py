"""Tunes glibc's malloc so that steps on a CPU reuse each other's memory."""

import ctypes
import importlib.metadata
import importlib.util
import os
import pkgutil
import platform

# Parameters of glibc's mallopt (malloc.h) and their values. Freed memory at the end of the heap is
# never returned to the kernel, and no block is a mapping of its own. All threads share one heap, as
# a thread's own heap holds no block above 64 MB.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
_KEEP = {_M_TRIM_THRESHOLD: -1, _M_MMAP_MAX: 0, _M_ARENA_MAX: 1}


def keep_freed() -> bool:
    """Has glibc keep freed memory for the next step if JAX computes on CPUs only.

    On a CPU, XLA allocates a step's memory anew at every step. By default glibc returns blocks of
    that size to the kernel at once, and the kernel clears every page of the next block. Call this
    before JAX starts its threads, since a thread keeps the heap that it began with.

    Returns:
      Whether glibc was told so. It is left alone if the C library is another one, if an
      accelerator's plugin is installed, or if the user has set MALLOC_... or GLIBC_TUNABLES.
    """
    is_set_by_user = any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ)
    if is_set_by_user or platform.libc_ver()[0] != "glibc" or not _only_cpu():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all([mallopt(parameter, value) for parameter, value in _KEEP.items()])


def _only_cpu() -> bool:
    """Whether JAX can choose nothing but CPUs; asking JAX itself would start its threads."""
    chosen = os.environ.get("JAX_PLATFORMS")
    if chosen:
        return chosen == "cpu"
    # Where JAX looks for plugins, and for TPUs.
    plugins = importlib.util.find_spec("jax_plugins")
    return not (
        importlib.metadata.entry_points(group="jax_plugins")
        or (plugins and any(pkgutil.iter_modules(plugins.submodule_search_locations)))
        or importlib.util.find_spec("libtpu")
    )
