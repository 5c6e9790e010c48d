"""What the C library does with memory that a CPU's programs give back."""

import ctypes
import importlib.metadata
import importlib.util
import os
import pkgutil
import platform

# Parameters of glibc's mallopt (malloc.h) and what they are set to: freed memory at the end of
# the heap is never returned, no block is a mapping of its own, and all threads share one heap, as
# those of threads hold no blocks above 64 MB.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
_KEEP = {_M_TRIM_THRESHOLD: -1, _M_MMAP_MAX: 0, _M_ARENA_MAX: 1}


def keep_freed() -> bool:
    """Has glibc keep freed memory for the next step, where JAX computes on CPUs only.

    On a CPU, XLA allocates a step's memory anew at every step. By default glibc returns blocks of
    that size to the kernel at once, and the kernel clears every page of the next one. To be
    called before JAX starts its threads: a thread keeps the heap that it began with.

    Returns:
      Whether it was done: not with another C library, with an accelerator's plugin in sight, or
      where the user has set glibc up by MALLOC_... or GLIBC_TUNABLES.
    """
    own = any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ)
    if own or platform.libc_ver()[0] != "glibc" or not _only_cpu():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all([mallopt(parameter, value) for parameter, value in _KEEP.items()])


def _only_cpu() -> bool:
    """Whether JAX has nothing but CPUs to choose from; asking JAX itself would start it."""
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
