from __future__ import annotations

import platform
import subprocess
import sys

from lexicell.allocator import keep_freed_memory, return_freed_memory

FAULTS = """
import resource, sys, torch
from lexicell.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
x = torch.randn(16_000_000)
for _ in range(20):
    x * 2
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    x * 2
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def said(program: str, how: str) -> int:
    """Run a program in a process of its own and return the number that it prints."""
    done = subprocess.run([sys.executable, "-c", program, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_freed_tensors_are_not_faulted_in_anew() -> None:
    if platform.libc_ver()[0] != "glibc":
        assert not keep_freed_memory()
        return
    # A few may still fault: a small allocation can land in the freed block, so that the next tensor needs a new one.
    assert said(FAULTS, "keep") < 0.5 * said(FAULTS, "leave")


HELD = """
import sys
import numpy as np
from pathlib import Path
from lexicell.allocator import return_freed_memory

def private():
    return next(int(l.split()[1]) for l in Path("/proc/self/status").read_text().splitlines() if "RssAnon" in l)

if sys.argv[1] == "return":
    assert return_freed_memory()
for _ in range(3):
    np.ones(3_500_000)  # 28 MB: glibc learns to take such from its heap
before, blocks, kept = private(), [], []
for _ in range(8):
    blocks.append(np.ones(2_000_000))
    kept.append(np.ones(64_000))  # half a MB lies behind the block: too large for a gap that was there before
del blocks
print(private() - before)
"""


def test_freed_blocks_leave_no_memory_behind() -> None:
    if platform.libc_ver()[0] != "glibc":
        assert not return_freed_memory()
        return
    # In kB, when 8 blocks of 16 MB are gone.
    assert said(HELD, "return") < 16_000 < said(HELD, "leave")
