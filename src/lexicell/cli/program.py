"""The program `lexicell`: finds the verb, reads its options, runs it, prints its tables.

Exit codes: 0 done; 2 the input is at fault (one message, no traceback); 1 a bug of ours (with traceback); 130
interrupted.
"""

from __future__ import annotations

import errno
import json
import math
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lexicell.errors import InputError
from lexicell.processes import is_child

if TYPE_CHECKING:
    from lexicell.cli.verbs.result import Result
    from lexicell.reporting.text import Table

DONE, BUG, INPUT_FAULT, INTERRUPTED = 0, 1, 2, 130
_NOT_OURS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}

_WIDE = 240


@dataclass(frozen=True)
class Verb:
    """A verb of the program.

    Parameters
    ----------
    words
        What the user types.
    topic
        Module of `lexicell.cli.verbs` that holds its function.
    arguments
        Its most important arguments, for the overview.
    summary
        One line, for the overview.
    recipe
        ``module:Class`` of the config whose fields can be overridden by dotted options; its function then has a
        parameter ``overrides``.
    """

    words: tuple[str, ...]
    topic: str
    arguments: str
    summary: str
    recipe: str = ""

    @property
    def name(self) -> str:
        """What the user types, as one text."""
        return " ".join(self.words)

    def load(self) -> Callable[..., Result]:
        """Return its function."""
        module = import_module(f"lexicell.cli.verbs.{self.topic}")
        function: Callable[..., Result] = getattr(module, "_".join(self.words))
        return function

    def load_recipe(self) -> type:
        """Return the class whose fields can be overridden."""
        module, _, name = self.recipe.partition(":")
        recipe: type = getattr(import_module(module), name)
        return recipe


VERBS = (
    Verb(("demo",), "training", "[--out DIR]", "the whole way on real data, in minutes"),
    Verb(("data", "list"), "data", "", "public data sets that can be fetched"),
    Verb(("data", "get"), "data", "NAME", "fetch one, checked by SHA-256"),
    Verb(("prepare",), "data", "CORPUS.yaml --out STORE", "check count matrices and write a store"),
    Verb(("store", "info"), "data", "STORE", "what a store holds"),
    Verb(("store", "verify"), "data", "STORE", "read every byte, list every problem"),
    Verb(("store", "export"), "data", "STORE --out FILE", "cells of a store as h5ad"),
    Verb(
        ("pretrain",),
        "training",
        "RECIPE --store STORE --out RUN",
        "train a model (recipes: tiny, small, base)",
        "lexicell.training.recipe:Recipe",
    ),
    Verb(("embed",), "cells", "RUN QUERY.h5ad --out OUT.h5ad", 'cell embeddings, obsm["X_lexicell"]'),
    Verb(
        ("annotate",),
        "cells",
        "RUN QUERY.h5ad --reference REF --out OUT.h5ad",
        "carry labels over from a reference",
        "lexicell.workflows.annotate:AnnotateRecipe",
    ),
    Verb(
        ("extend",),
        "species",
        "RUN --store STORE --out RUN2",
        "a species joins, without orthologs",
        "lexicell.training.extension_recipe:ExtensionRecipe",
    ),
    Verb(("genes", "match"), "species", "RUN --from A --to B --out FILE", "nearest genes of two species"),
    Verb(("genes", "table"), "genes", "RUN", "gene embeddings with species, id, symbol"),
    Verb(("genes", "coherence"), "genes", "RUN --sets FILE.gmt", "do near genes share a function? beside PCA etc."),
    Verb(("genes", "contextual"), "genes", "RUN STORE --by LEVEL --out FILE", "gene embeddings in each group of cells"),
    Verb(("genes", "tissue"), "genes", "RUN STORE --by LEVEL --a A --b B", "genes that change company between groups"),
    Verb(("genes", "map"), "gene_pictures", "RUN --sets FILE.gmt", "a picture of the gene space"),
    Verb(("genes", "neighbours"), "gene_pictures", "RUN GENE", "the genes around one, across species"),
    Verb(("genes", "contrast"), "genes", "RUN --groups groups.yaml", "genes alike within a group of species"),
    Verb(("interpret", "counts"), "interpret", "RUN", "are the count classes in order?"),
    Verb(("interpret", "attention"), "interpret", "RUN --by LEVEL", "who attends to whom, beside co-expression"),
    Verb(("interpret", "attribution"), "interpret", "RUN --by LEVEL", "which genes made a label"),
    Verb(("interpret", "knockout"), "interpret", "RUN --genes A,B", "what changes when a gene is gone"),
    Verb(
        ("benchmark", "annotate"),
        "benchmark",
        "STORE --out DIR",
        "annotation beside other tools and embeddings",
        "lexicell.workflows.annotate:AnnotateRecipe",
    ),
    Verb(("report",), "training", "RUN", "one HTML page of a run"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program.

    Parameters
    ----------
    arguments
        What follows the program's name; by default the process's own.

    Returns
    -------
    int
        The exit code.
    """
    try:
        return _run(list(sys.argv[1:] if arguments is None else arguments))
    except InputError as error:
        sys.stderr.write(f"lexicell: error: {error}\n")
        return INPUT_FAULT
    except KeyboardInterrupt:
        sys.stderr.write("lexicell: interrupted\n")
        return INTERRUPTED
    except BrokenPipeError:  # the reader has gone, as in `lexicell data list | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except OSError as error:
        if error.errno not in _NOT_OURS:
            return _bug()
        sys.stderr.write(f"lexicell: error: {error.filename or 'a file'}: {error.strerror}\n")
        return INPUT_FAULT
    except Exception:
        return _bug()


def _bug() -> int:
    traceback.print_exc()
    sys.stderr.write("lexicell: this is a bug in lexicell; please report it with the lines above\n")
    return BUG


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in {"-h", "--help", "help"}:
        sys.stdout.write(overview())
        return DONE
    if arguments[0] == "--version":
        sys.stdout.write(f"lexicell {_version()}\n")
        return DONE
    verb, rest = find_verb(arguments)
    if verb is None:
        sys.stdout.write(overview(arguments[0]))
        return DONE
    return run_verb(verb, rest)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("lexicell")
    except PackageNotFoundError:
        return "of a source tree, not installed"


def find_verb(arguments: Sequence[str]) -> tuple[Verb | None, list[str]]:
    """Return the verb that a command line begins with, and what follows it.

    The verb is None where the line asks for the help of a group of verbs, such as ``store --help``.

    Raises
    ------
    InputError
        When there is no such verb.
    """
    for verb in VERBS:
        if tuple(arguments[: len(verb.words)]) == verb.words:
            return verb, list(arguments[len(verb.words) :])
    first = arguments[0]
    group = [verb.words[1] for verb in VERBS if len(verb.words) == 2 and verb.words[0] == first]
    if not group:
        raise InputError(f"there is no verb {first!r}. See `lexicell --help`.")
    if len(arguments) == 1 or arguments[1] in {"-h", "--help"}:
        return None, []
    raise InputError(f"{first} {arguments[1]}: after {first!r} expected {' or '.join(group)}. See `lexicell --help`.")


def overview(group: str | None = None) -> str:
    """Return the help of the program: all verbs, or those of a group; made by hand, so that nothing is imported."""
    shown = [verb for verb in VERBS if group in {None, verb.words[0]}]
    lines = [f"  {verb.name + ' ' + verb.arguments:<58} {verb.summary}".rstrip() for verb in shown]
    return "\n".join(
        [
            "usage: lexicell VERB ...",
            "",
            "Pretrain transformers on single-cell RNA counts: annotate cells, embed cells and genes.",
            "",
            *lines,
            "",
            "lexicell VERB --help explains a verb; with --json FILE every verb also writes its figures as JSON.",
            "",
        ]
    )


def run_verb(verb: Verb, arguments: list[str]) -> int:
    """Read a verb's options, run it, print its tables and write its JSON; return the exit code."""
    from lexicell.cli import options, overrides

    function = verb.load()
    more: dict[str, Any] = {}
    if verb.recipe:
        parser = options.build_parser(function, f"lexicell {verb.name}", omit=("overrides",))
        if {"-h", "--help"} & set(arguments):
            parser.print_help()
            sys.stdout.flush()  # the recipe's fields take a while: their classes need torch
            sys.stdout.write(f"\n{overrides.fields_help(verb.load_recipe())}\n")
            return DONE
        arguments, more["overrides"] = overrides.split_overrides(arguments, parser.flags)
    else:
        parser = options.build_parser(function, f"lexicell {verb.name}")
    try:
        given = parser.read(arguments)
    except SystemExit as leave:  # --help
        return int(leave.code or 0)
    json_path: Path | None = given.pop("json")
    if json_path is not None and not json_path.resolve().parent.is_dir():
        raise InputError(f"--json {json_path}: there is no folder {json_path.parent}; make it first")

    result = function(**given, **more)
    if verb.recipe and is_child():  # one of several processes that train; the first one tells it all
        return DONE
    if json_path is not None:
        part = json_path.with_name(f".{json_path.name}.part")
        part.write_text(json.dumps(plain(result.figures()), indent=2) + "\n", encoding="utf-8")
        part.replace(json_path)
    show(result.tables())
    return int(getattr(result, "exit_code", DONE))  # a damaged store, for instance, is found without an exception


def show(tables: Sequence[Table]) -> None:
    """Print tables, wide where the output is no terminal, so that paths stay whole."""
    from rich.console import Console

    from lexicell.reporting.text import print_tables

    class Output(Console):
        def on_broken_pipe(self) -> None:  # rich would exit with code 1
            raise BrokenPipeError

    print_tables(tables, Output(width=None if sys.stdout.isatty() else _WIDE))
    sys.stdout.flush()


def plain(value: Any) -> Any:
    """Return figures as JSON knows them: numpy scalars and paths turned, NaN and infinity as null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value
