"""The one exception that means "the user's input is at fault"."""

from __future__ import annotations

from collections.abc import Iterable


class InputError(ValueError):
    """Bad input from the user: a file, an option or an array that lexicell cannot use.

    The message names what was wrong and where, what was found, what was expected and what to do.
    The command line prints it without a traceback and exits with code 2.
    """


def listing(items: Iterable[object], limit: int = 5) -> str:
    """Join items for an error message, cutting a long list with a count.

    >>> listing(["a", "b", "c"], limit=2)
    'a, b and 1 more'
    """
    shown = [str(item) for item in items]
    if len(shown) <= limit:
        return ", ".join(shown)
    return f"{', '.join(shown[:limit])} and {len(shown) - limit} more"


def raise_all(faults: Iterable[str], heading: str) -> None:
    """Raise one `InputError` that lists every fault, if there is any."""
    found = list(faults)
    if found:
        raise InputError("\n".join([heading, *(f"  - {fault}" for fault in found)]))
