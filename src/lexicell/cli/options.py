"""A command-line parser made from a function: its signature gives the options, its docstring their help.

Parameters before the ``*`` become positional arguments, those after it options: ``max_error`` is
``--max-error``. ``bool`` is a switch, ``Literal`` a choice, ``list`` an option that is given several times,
``tuple`` a list with commas. What has no default is required. A parameter that is a dataclass stands for its fields:
each becomes an option, explained by the class's own docstring.
"""

from __future__ import annotations

import argparse
import inspect
import re
import types
from collections.abc import Callable, Collection, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

from lexicell.errors import InputError


class Parser(argparse.ArgumentParser):
    """An argument parser that raises `InputError` where argparse would exit with a fault."""

    bundles: dict[str, type]
    """Parameters that are dataclasses, by name: their fields are options of their own."""

    def read(self, arguments: Sequence[str]) -> dict[str, Any]:
        """Return the keyword arguments that a command line gives, and ``json``."""
        given = vars(self.parse_args(arguments))
        for name, bundle in self.bundles.items():
            given[name] = bundle(**{field.name: given.pop(field.name) for field in fields(bundle)})
        return given

    @property
    def flags(self) -> frozenset[str]:
        """All options, with their dashes."""
        return frozenset(self._option_string_actions)

    def error(self, message: str) -> NoReturn:
        """Raise the fault with a pointer to the verb's help."""
        raise InputError(f"{message}\nSee `{self.prog} --help`.")


def build_parser(function: Callable[..., Any], prog: str, *, omit: Collection[str] = ()) -> Parser:
    """Return a parser for a function's parameters.

    Parameters
    ----------
    function
        Annotated, with a numpydoc docstring that explains every parameter.
    prog
        What the user typed, for the usage line.
    omit
        Parameters that are not options.

    Returns
    -------
    Parser
        ``parser.read(...)`` are keyword arguments for `function`, and ``json``.
    """
    text = inspect.getdoc(function) or ""
    helps = parameter_docs(text)
    parser = Parser(
        prog=prog,
        description=text.partition("\nParameters\n")[0].strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.bundles = {}
    hints = get_type_hints(function)
    for parameter in inspect.signature(function).parameters.values():
        hint = hints[parameter.name]
        if is_dataclass(hint) and isinstance(hint, type):
            parser.bundles[parameter.name] = hint
            _add_fields(parser, hint)
        elif parameter.name not in omit:
            _add(parser, parameter, hint, helps[parameter.name])
    parser.add_argument("--json", type=Path, metavar="FILE", help="Also write the figures to this file, as JSON.")
    return parser


def parameter_docs(docstring: str) -> dict[str, str]:
    """Return the help of every parameter, or attribute of a class, in a numpydoc docstring, as one line."""
    section = re.search(
        r"^(?:Parameters|Attributes)\n-+\n(.*?)(?=^\S[^\n]*\n-+\n|\Z)", docstring + "\n", re.DOTALL | re.MULTILINE
    )
    docs: dict[str, str] = {}
    if section:
        for names, body in re.findall(r"^(\S[^\n]*)\n((?:[ \t]+[^\n]*\n?|\n)*)", section[1], re.MULTILINE):
            for name in names.partition(":")[0].split(","):
                docs[name.strip()] = " ".join(body.split())
    return docs


def _add_fields(parser: Parser, bundle: type) -> None:
    """Add an option for every field of a dataclass."""
    hints, helps = get_type_hints(bundle), parameter_docs(inspect.getdoc(bundle) or "")
    for field in fields(bundle):
        default = field.default if field.default_factory is MISSING else field.default_factory()
        parameter = inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if default is MISSING else default,
        )
        _add(parser, parameter, hints[field.name], helps[field.name])


def _add(parser: Parser, parameter: inspect.Parameter, hint: Any, text: str) -> None:
    optional = parameter.default is not inspect.Parameter.empty
    kind = _without_none(hint)
    text = text.replace("%", "%%")  # argparse formats help texts
    if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
        more: dict[str, Any] = {"nargs": "?", "default": parameter.default} if optional else {}
        parser.add_argument(parameter.name, metavar=parameter.name.upper(), type=kind, help=text, **more)
        return
    flag = "--" + parameter.name.rstrip("_").replace("_", "-")  # from_: `from` is no name in Python
    if kind is bool:
        parser.add_argument(flag, action="store_true", help=text)
        return
    if optional and parameter.default not in (None, (), []):
        text = f"{text} (default: {parameter.default})"
    parser.add_argument(
        flag,
        dest=parameter.name,
        required=not optional,
        default=parameter.default if optional else None,
        help=text,
        **_reading(kind, parameter.name.rstrip("_")),
    )


def _reading(kind: Any, name: str) -> dict[str, Any]:
    """How argparse reads an option of this type."""
    if get_origin(kind) is Literal:
        return {"choices": get_args(kind)}
    if get_origin(kind) is list:
        return {"action": "append", "type": get_args(kind)[0], "metavar": name.upper()}
    if get_origin(kind) is tuple:
        if get_args(kind)[0] is int:
            return {"type": _comma_numbers, "metavar": "N,N"}
        return {"type": _comma_list, "metavar": "A,B"}
    return {"type": kind, "metavar": {int: "N", float: "X"}.get(kind, name.upper())}


def _comma_list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _comma_numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in _comma_list(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected whole numbers with commas between, got {text!r}") from None


def _without_none(hint: Any) -> Any:
    if get_origin(hint) in {Union, types.UnionType}:
        (kind,) = (part for part in get_args(hint) if part is not type(None))
        return kind
    return hint
