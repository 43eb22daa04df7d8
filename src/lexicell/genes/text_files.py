"""Text tables as people have them: plain or gzip, told apart by content."""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path
from typing import TextIO

import pandas as pd

from lexicell.errors import InputError


def read_text(path: str | Path, what: str) -> TextIO:
    """Open a UTF-8 text file, unpacking gzip where the content is gzip.

    Parameters
    ----------
    path
        The file; its suffix does not matter.
    what
        What the file should be, for messages: "an ortholog table".

    Raises
    ------
    InputError
        When it cannot be read, is damaged or is not UTF-8.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        return io.StringIO(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start}); expected {what}") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: damaged gzip ({error}); expected {what}: fetch the file again") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected {what}") from None


def read_table(path: str | Path, what: str) -> pd.DataFrame:
    """Read a table with a header, all cells as text ("" where empty); commas in a ``.csv``, otherwise tabs.

    Raises
    ------
    InputError
        As `read_text`, and when the lines do not make a table.
    """
    path = Path(path)
    separator = "," if path.name.removesuffix(".gz").endswith(".csv") else "\t"
    text = read_text(path, what)
    try:
        return pd.read_csv(text, sep=separator, dtype=str, keep_default_na=False, na_filter=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise InputError(f"{path}: not a table ({str(error).strip()}); expected {what}") from None
