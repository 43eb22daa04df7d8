"""Checkpoints that can be trusted: whole or not there, with a checksum beside them, and the last few kept.

``step-000000500.ckpt`` has ``step-000000500.ckpt.sha256`` beside it, in the form of the program ``sha256sum``. The
checksum is written first: a checkpoint that has a name has its checksum. A checkpoint that does not fit its checksum
is set aside with a warning, and the one before it is used.
"""

from __future__ import annotations

import hashlib
import io
import logging
import re
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from lexicell.errors import InputError, listing
from lexicell.files import is_disk_full, write_bytes, write_text

_NAME = re.compile(r"step-(\d+)\.ckpt")
_MADE_BY_US = {"state_dict", "optimizer_states", "lr_schedulers", "global_step", "exposure", "counts_clamped"}
_LOG = logging.getLogger(__name__)


def checkpoint_path(folder: Path, step: int) -> Path:
    """Return where the checkpoint of a step lies."""
    return folder / f"step-{step:09d}.ckpt"


def checkpoints_in(folder: Path) -> list[Path]:
    """Return a folder's checkpoints, the last step first."""
    if not folder.is_dir():
        return []
    found = [(int(match[1]), path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)]


def step_of(path: Path) -> int:
    """Return the step after which a checkpoint was written."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise AssertionError(f"{path} does not bear the name of a checkpoint")
    return int(match[1])


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint and its checksum; what bore the name before stays until both are on disk.

    Raises
    ------
    OSError
        When the disk is full, for instance; nothing is left of the attempt.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    whole = buffer.getbuffer()
    write_text(_checksum_path(path), f"{hashlib.sha256(whole).hexdigest()}  {path.name}\n")
    try:
        write_bytes(path, whole)
    except OSError:
        if not path.is_file():
            _checksum_path(path).unlink(missing_ok=True)
        raise


def fault_of(path: Path) -> str | None:
    """Return what is wrong with a checkpoint, None if nothing is; nothing in it is run."""
    try:
        if _checksum_path(path).is_file():
            expected = _checksum_path(path).read_text(encoding="utf-8").split()[0]
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != expected:
                    return "its checksum does not fit: it was truncated or changed"
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        missing = _MADE_BY_US - state.keys()
        return f"not a checkpoint that this lexicell wrote: {listing(sorted(missing))} not in it" if missing else None
    except (OSError, RuntimeError, EOFError, KeyError, IndexError, ValueError, AttributeError) as error:
        return f"not readable ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
    except UnpicklingError:
        return "it holds more than tensors and plain values, and is not loaded"


def find_last(folder: Path) -> Path | None:
    """Return the last checkpoint that is whole, None if there is none at all.

    Damaged ones after it are renamed, with a warning.

    Raises
    ------
    InputError
        When there are checkpoints, but none is whole.
    """
    faults: list[tuple[Path, str]] = []
    for path in checkpoints_in(folder):
        fault = fault_of(path)
        if fault is None:
            for damaged, _ in faults:
                _set_aside(damaged)
            if faults:
                told = "; ".join(f"{damaged.name}: {what}" for damaged, what in faults)
                _LOG.warning("%s: going on from %s, as later ones are damaged (%s)", folder, path.name, told)
            return path
        faults.append((path, fault))
    if faults:
        raise InputError(
            f"{folder}: no checkpoint is whole ({listing(f'{path.name}: {what}' for path, what in faults)}); "
            "copy a whole one from a backup, or remove the run folder and start anew"
        )
    return None


def _set_aside(path: Path) -> None:
    """Rename a damaged checkpoint, so that it is neither counted nor tried again; another process may have done so."""
    for each in (path, _checksum_path(path)):
        if each.exists():
            each.replace(each.with_name(f"{each.name}.damaged"))


def keep_last(folder: Path, n: int) -> None:
    """Remove all checkpoints but the last few."""
    for path in checkpoints_in(folder)[n:]:
        path.unlink(missing_ok=True)
        _checksum_path(path).unlink(missing_ok=True)


def _checksum_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


class CheckpointFiles(TorchCheckpointIO):
    """Writes and reads Lightning's checkpoints in this way. A full disk does not end the run."""

    def __init__(self) -> None:
        self.failed: str | None = None
        """Why the last checkpoint could not be written; None if it was."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write a checkpoint; where the disk is full, warn and leave the one before."""
        try:
            write_checkpoint(Path(path), checkpoint)
        except OSError as error:
            if not is_disk_full(error):
                raise
            self.failed = f"{path}: could not be written ({error.strerror})"
            _LOG.warning(
                "%s; training goes on, and the checkpoint before it stays. Make room on the disk before the next one.",
                self.failed,
            )
        else:
            self.failed = None

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint onto the CPU; nothing but tensors and plain values is loaded."""
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return state


class KeepCheckpoints(Checkpoint):
    """Writes a checkpoint after every look at the held-out cells, and keeps the last few."""

    def __init__(self, folder: Path, files: CheckpointFiles, keep: int) -> None:
        self._folder, self._files, self._keep = folder, files, keep

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Write; all processes take part."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        trainer.save_checkpoint(checkpoint_path(self._folder, trainer.global_step))
        if trainer.is_global_zero and self._files.failed is None:
            keep_last(self._folder, self._keep)
