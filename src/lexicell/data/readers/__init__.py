"""Readers of count matrices: one small module per file format, all behind `MatrixSource`."""

from lexicell.data.readers.opening import open_source
from lexicell.data.readers.source import MatrixSource

__all__ = ["MatrixSource", "open_source"]
