"""Dotted overrides of a recipe on the command line: ``--optim.lr 3e-4``."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

import yaml

from lexicell.errors import InputError

_NUMBER = re.compile(r"[+-]?(\d[\d_]*\.?\d*|\.\d+)([eE][+-]?\d+)?")


def split_overrides(arguments: Sequence[str], flags: Collection[str]) -> tuple[list[str], dict[str, object]]:
    """Take the recipe's overrides out of a command line.

    Parameters
    ----------
    arguments
        What follows the verb.
    flags
        The verb's own options, with their dashes; every other ``--name value`` or ``--name=value`` is an
        override.

    Returns
    -------
    own
        The arguments that are not overrides, in order.
    overrides
        Dotted name -> value.

    Raises
    ------
    InputError
        When an override has no value.
    """
    own: list[str] = []
    overrides: dict[str, object] = {}
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        name, equals, value = argument.partition("=")
        if argument == "--":
            return [*own, argument, *rest], overrides
        if not name.startswith("--") or name in flags:
            own.append(argument)
            continue
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise InputError(f"{name}: expected a value after it, as in {name}=3; see the verb's --help")
            value = rest.pop(0)
        overrides[name[2:].replace("-", "_")] = read_value(value)
    return own, overrides


def read_value(text: str) -> object:
    """Read a value as YAML would, and ``3e-4`` as the number that it is."""
    if _NUMBER.fullmatch(text):
        try:
            return int(text)
        except ValueError:
            return float(text)
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def fields_help(recipe: type) -> str:
    """Return the help of every field of a recipe's class, from the dataclasses' own docstrings."""
    import jsonargparse

    jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = jsonargparse.ArgumentParser(add_help=False, usage=jsonargparse.SUPPRESS)
    parser.add_class_arguments(recipe)
    # jsonargparse would also take a whole section from a file; recipes are the place for that.
    fields = re.sub(
        r"^  --[\w.]+ CONFIG\s+Path to a configuration file\.\n", "", parser.format_help(), flags=re.MULTILINE
    )
    return (
        "Every field below can be overridden, by --SECTION.FIELD VALUE; an override wins over what a recipe says, "
        f"wherever it stands:\n\n{fields.strip()}"
    )
