"""Making the next item of a stream while the present one is in use."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def read_ahead(items: Iterator[T]) -> Iterator[T]:
    """Yield the items of a stream; a thread makes the next one meanwhile.

    Unpacking what HDF5 read leaves Python's lock to others, so that reading costs next to no time beside work on
    what was read. One item more is in memory. Errors come where the item would have come.

    Parameters
    ----------
    items
        The stream; nothing else may take from it.
    """
    end = object()
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(next, items, end)
        while (item := waiting.result()) is not end:
            waiting = thread.submit(next, items, end)
            yield item  # type: ignore[misc]
