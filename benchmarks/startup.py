"""How long a user waits before anything happens: `import lexicell`, `lexicell --help`, a verb's help.

Every command runs in a fresh process, in turn with a bare `python -c pass`, so that the ratios hold on a busy machine.

Usage: python benchmarks/startup.py [--repeats 9] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

BARE = "python -c pass"
COMMANDS = {
    BARE: ["-c", "pass"],
    "import lexicell": ["-c", "import lexicell"],
    "lexicell --help": ["-m", "lexicell", "--help"],
    "lexicell annotate --help": ["-m", "lexicell", "annotate", "--help"],
    "lexicell data list": ["-m", "lexicell", "data", "list"],
    "lexicell pretrain --help": ["-m", "lexicell", "pretrain", "--help"],
}
LIMITS = {"import lexicell": 0.5, "lexicell --help": 1.5}


def seconds(arguments: list[str]) -> float:
    """Return the wall time of one Python process."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> int:
    """Measure, print a table, and say by the exit code whether the limits hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9, help="Rounds; the medians are shown.")
    parser.add_argument("--json", type=Path, help="Also write the medians to this file.")
    options = parser.parse_args()

    for arguments in COMMANDS.values():  # byte code and page cache
        seconds(arguments)
    rounds = [{name: seconds(arguments) for name, arguments in COMMANDS.items()} for _ in range(options.repeats)]
    medians = {name: statistics.median(one[name] for one in rounds) for name in COMMANDS}

    print(f"{'command':<28} {'median s':>9} {'least':>7} {'most':>7} {'x bare':>7} {'limit s':>8}")
    for name, median in medians.items():
        times = [one[name] for one in rounds]
        limit = f"{LIMITS[name]:.1f}" if name in LIMITS else "-"
        ratio = median / medians[BARE]
        print(f"{name:<28} {median:9.3f} {min(times):7.3f} {max(times):7.3f} {ratio:7.1f} {limit:>8}")
    if options.json:
        options.json.write_text(json.dumps({"repeats": options.repeats, "median_s": medians}, indent=2) + "\n")
    over = [name for name, limit in LIMITS.items() if medians[name] > limit]
    if over:
        print(f"over the limit: {', '.join(over)}")
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
