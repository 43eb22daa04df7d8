from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from lexicell.data.read_ahead import read_ahead


def test_items_come_in_order() -> None:
    assert list(read_ahead(iter(range(100)))) == list(range(100))
    assert list(read_ahead(iter([]))) == []
    assert list(read_ahead(iter([None, None]))) == [None, None]


def test_the_next_item_is_made_meanwhile() -> None:
    made = [threading.Event() for _ in range(3)]

    def items() -> Iterator[int]:
        for place, event in enumerate(made):
            event.set()
            yield place

    for place in read_ahead(items()):
        assert place == 2 or made[place + 1].wait(timeout=10)


def test_an_error_comes_where_its_item_would() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise KeyError("broken")

    stream = read_ahead(items())
    assert next(stream) == 1
    with pytest.raises(KeyError, match="broken"):
        next(stream)


def test_a_stream_may_be_left_early() -> None:
    stream = read_ahead(iter(range(10)))
    assert next(stream) == 0
    stream.close()
    assert threading.active_count() < 20
