"""What a benchmark reads off its own process: the most memory used so far, and the time when a device is done."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

import torch


def peak_bytes(device: str = "cpu") -> int:
    """Return the most bytes in use so far: of the GPU, or resident of this process.

    Read from the kernel's high-water mark where there is one: getrusage would begin with what the parent process held
    when it started this one.
    """
    if device == "cuda":
        return int(torch.cuda.max_memory_allocated())
    status = Path("/proc/self/status")
    if status.is_file():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def clock(device: str = "cpu") -> float:
    """Return the time in seconds at which all work so far is done."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()
