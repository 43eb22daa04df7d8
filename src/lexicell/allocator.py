"""What becomes of freed memory: kept in training, handed back while files are read.

Design choices
- On a CPU large tensors are otherwise handed back to the system and faulted in anew every step, which costs more than
  the arithmetic on them.
- glibc learns from the largest arrays that are freed to take such from its heap. Blocks of a file then lie between
  smaller arrays that stay, and memory grows with the file though nothing is kept of it.
"""

from __future__ import annotations

import ctypes
import platform

# Parameters of mallopt(3) in glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
_LARGE = 1 << 23  # bytes; at 1 MB the many arrays of some MB cost a fifth of the time to be faulted in anew


def keep_freed_memory() -> bool:
    """Tell glibc to keep and reuse freed memory, for this whole process; elsewhere do nothing.

    Memory in use does not grow; the process only holds on to the most that it once used.

    Returns
    -------
    True where it was done.
    """
    return _tell({M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1})


def return_freed_memory() -> bool:
    """Tell glibc to hand every large array back once it is freed, for this whole process; elsewhere do nothing.

    Memory then stays as it is however many blocks of a file come and go.

    Returns
    -------
    True where it was done.
    """
    return _tell({M_MMAP_MAX: 1 << 16, M_MMAP_THRESHOLD: _LARGE, M_TRIM_THRESHOLD: _LARGE})


def _tell(settings: dict[int, int]) -> bool:
    """Set parameters of glibc's malloc; say whether it took them."""
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    taken = [bool(libc.mallopt(name, value)) for name, value in settings.items()]
    return all(taken)
