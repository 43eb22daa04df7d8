"""Keep freed memory: on a CPU, large tensors are otherwise handed back to the system and faulted in anew every step."""

from __future__ import annotations

import ctypes
import platform

# Parameters of mallopt(3) in glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Tell glibc to keep and reuse freed memory, for this whole process; elsewhere do nothing.

    Memory in use does not grow; the process only holds on to the most that it once used.

    Returns
    -------
    True where it was done.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(M_MMAP_MAX, 0)) and bool(libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
