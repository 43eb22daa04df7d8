from __future__ import annotations

import platform
import subprocess
import sys

from lexicell.model.allocator import keep_freed_memory

FAULTS = """
import resource, sys, torch
from lexicell.model.allocator import keep_freed_memory
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


def faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_freed_tensors_are_not_faulted_in_anew() -> None:
    if platform.libc_ver()[0] != "glibc":
        assert not keep_freed_memory()
        return
    # A few may still fault: a small allocation can land in the freed block, so that the next tensor needs a new one.
    assert faults("keep") < 0.5 * faults("leave")
