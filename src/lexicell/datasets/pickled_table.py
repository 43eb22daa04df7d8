"""Reading a pandas table out of a pickle, without unpickling it.

A pickle is a program, so lexicell never runs one. Here its instructions are looked through (`pickletools`), numbers,
text and lists are taken, and every call that it asks for is only noted down; from these notes the columns are put
together. A pickle that wants more than a table of pandas (1.x) is refused.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from lexicell.errors import InputError

_MARK = object()
_TEXTS = ("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8")
_NUMBERS = ("BINFLOAT", "BININT", "BININT1", "BININT2", "LONG1")
_BYTES = ("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8")
_AS_THEY_ARE = frozenset((*_TEXTS, *_NUMBERS, *_BYTES))
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "MARK": lambda: _MARK,
}
_SHORT_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass(eq=False)
class _Call:
    """What a pickle asks to call, with what, and the state to give to what comes of it."""

    name: str
    args: tuple[Any, ...] = ()
    state: Any = None


def read_pickled_table(content: bytes, source: str) -> pd.DataFrame:
    """Return the table that a pickle holds.

    Parameters
    ----------
    content
        The pickle.
    source
        What to call it in an error.

    Raises
    ------
    InputError
        When it is no pickle of a pandas table.
    """
    try:
        return _table(_notes(content))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise InputError(f"{source}: is not a pickled table that lexicell can read ({error}).") from None


def _notes(content: bytes) -> Any:
    """Go through the instructions and return what they build, calls as notes."""
    stack: list[Any] = []
    memo: list[Any] = []
    argument: Any
    for code, argument, _ in pickletools.genops(content):
        name = code.name
        if name in _AS_THEY_ARE:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name]())
        elif name == "MEMOIZE":
            memo.append(stack[-1])
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name in _SHORT_TUPLES:
            size = _SHORT_TUPLES[name]
            stack[-size:] = [tuple(stack[-size:])]
        elif name in ("TUPLE", "APPENDS", "SETITEMS"):
            _gather(stack, name)
        elif name == "APPEND":
            item = stack.pop()
            stack[-1].append(item)
        elif name == "SETITEM":
            value, key = stack.pop(), stack.pop()
            stack[-1][key] = value
        elif name == "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            stack.append(_Call(f"{module}.{attribute}"))
        elif name in ("REDUCE", "NEWOBJ"):
            args, called = stack.pop(), stack.pop()
            stack.append(_Call(called.name, args))
        elif name == "BUILD":
            state = stack.pop()
            stack[-1].state = state
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise ValueError(f"the instruction {name} is none that a table needs")
    return stack[-1]


def _gather(stack: list[Any], name: str) -> None:
    """Take the items behind the last mark, into a tuple or into the list or mapping before it."""
    place = len(stack) - 1
    while stack[place] is not _MARK:
        place -= 1
    items = stack[place + 1 :]
    del stack[place:]
    if name == "TUPLE":
        stack.append(tuple(items))
    elif name == "APPENDS":
        stack[-1].extend(items)
    else:
        stack[-1].update(zip(items[::2], items[1::2], strict=True))


def _table(frame: _Call) -> pd.DataFrame:
    if not isinstance(frame, _Call) or not frame.name.endswith(".DataFrame"):
        raise ValueError("it holds no DataFrame")
    state = frame.state
    manager = state.get("_mgr", state.get("_data"))
    parts = manager.state[3]["0.14.1"]
    names, index = (_values(axis) for axis in parts["axes"])
    columns: dict[int, Any] = {}
    for block in parts["blocks"]:
        values, places = _values(block["values"]), _places(block["mgr_locs"], len(names))
        rows = [values] if getattr(values, "ndim", 1) == 1 else list(values)
        columns |= dict(zip(places, rows, strict=True))
    return pd.DataFrame({str(names[place]): columns[place] for place in sorted(columns)}, index=pd.Index(index))


def _places(locations: Any, n_columns: int) -> list[int]:
    if locations.name == "builtins.slice":
        return list(range(*slice(*locations.args).indices(n_columns)))
    return [int(place) for place in _values(locations)]


def _values(node: Any) -> Any:
    """Return the array that a note stands for."""
    kind = node.name.rpartition(".")[2]
    if kind == "_new_Index":
        return _values(node.args[1]["data"])
    if kind == "_frombuffer":
        buffer, dtype, shape, order = node.args
        return np.frombuffer(bytes(buffer), dtype=_dtype(dtype)).reshape(shape, order=order)
    if kind == "_reconstruct":
        _, shape, dtype, fortran, content = node.state
        if isinstance(content, list):
            values: npt.NDArray[Any] = np.empty(len(content), dtype=object)
            values[:] = content
        else:
            values = np.frombuffer(bytes(content), dtype=_dtype(dtype))
        return values.reshape(shape, order="F" if fortran else "C")
    if kind == "Categorical":
        dtype = node.state["_dtype"]
        categories = _values(dtype.args[0] if dtype.args else dtype.state["categories"])
        return np.array([*categories.tolist(), None], dtype=object)[_values(node.state["_codes"])]
    raise ValueError(f"it asks for {node.name}")


def _dtype(node: _Call) -> np.dtype[Any]:
    kind = str(node.args[0])
    if not node.name.endswith(".dtype") or kind[0] not in "biuf":
        raise ValueError(f"it holds values of the type {kind}")
    return np.dtype(kind)
