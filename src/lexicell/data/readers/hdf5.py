"""Opening HDF5 files, and what all readers of them share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from lexicell.errors import InputError

_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"


def open_hdf5(path: Path, name: str) -> h5py.File:
    """Open an HDF5 file for reading; raise InputError that says why it cannot be."""
    try:
        with path.open("rb") as handle:
            head = handle.read(8)
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror}).") from None
    if not head:
        raise InputError(f"{name}: is empty (0 bytes).")
    if head != _HDF5_MAGIC:
        raise InputError(f"{name}: is not an HDF5 file (it starts with {head[:8]!r}).")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise InputError(
            f"{name}: cannot be opened: cut short or damaged ({first_line(error)}). Fetch it again."
        ) from None


def text_of(value: Any) -> str:
    """Return text that HDF5 gave as bytes or as text."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def texts_of(values: Any) -> Any:
    """Return an array with its bytes decoded; arrays of numbers stay."""
    array = np.asarray(values)
    if array.dtype.kind in "SO":
        return np.array([text_of(value) for value in array.ravel()], dtype=object).reshape(array.shape)
    return array


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
