"""Files that are whole and on disk, or not there at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_disk_full(error: OSError) -> bool:
    """Return whether there was no room: the disk is full, or the user's quota or the largest file size is reached."""
    return error.errno in _NO_ROOM


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write a file under a temporary name and rename it when all of it is on disk.

    Raises
    ------
    OSError
        When the disk is full, for instance; nothing is left of the attempt, and what bore the name before stays.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the name is on disk, too
    finally:
        os.close(folder)


def write_text(path: Path, text: str) -> None:
    """Write a text file in the same way, in UTF-8."""
    write_bytes(path, text.encode("utf-8"))
