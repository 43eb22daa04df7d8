"""``python -m lexicell``: the same as the program `lexicell`."""

import sys

from lexicell.cli.program import main

if __name__ == "__main__":
    sys.exit(main())
