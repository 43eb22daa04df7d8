"""Which of the processes of one command this is: training on several devices starts the command several times."""

from __future__ import annotations

import os


def is_child() -> bool:
    """Return whether this is one of the further processes that Lightning, torchrun or SLURM started for a run."""
    return any(int(os.environ.get(name, 0)) > 0 for name in ("LOCAL_RANK", "RANK", "SLURM_PROCID"))
