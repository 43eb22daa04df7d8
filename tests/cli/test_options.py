from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from lexicell.cli.options import build_parser, parameter_docs
from lexicell.errors import InputError


def verb(
    run: Path,
    other: str = "x",
    *,
    store: list[Path],
    levels: tuple[str, ...] | None = None,
    method: Literal["knn", "head"] = "knn",
    max_error: float | None = None,
    workers: int = 1,
    resume: bool = False,
    hidden: dict[str, object] | None = None,
) -> None:
    """Do something.

    At 100% of the cells.

    Parameters
    ----------
    run
        The run,
        on two lines.
    other
        Another one.
    store, hidden
        Stores.
    levels
        Levels.
    method
        How.
    max_error : float
        At most 5%.
    workers
        Processes.
    resume
        Go on.

    Returns
    -------
    None
        Nothing.
    """


@pytest.fixture
def parser():
    return build_parser(verb, "lexicell verb", omit=("hidden",))


def test_types_follow_the_signature(parser):
    line = "RUN --store a --store b --levels class,subclass --method head --max-error .05 --workers 2 --resume"
    assert vars(parser.parse_args([*line.split(), "--json", "f.json"])) == {
        "run": Path("RUN"), "other": "x", "store": [Path("a"), Path("b")], "levels": ("class", "subclass"),
        "method": "head", "max_error": 0.05, "workers": 2, "resume": True, "json": Path("f.json"),
    }  # fmt: skip


def test_defaults_follow_the_signature(parser):
    given = vars(parser.parse_args(["RUN", "y", "--store", "a"]))
    assert given["other"] == "y"
    assert given["levels"] is None
    assert given["method"] == "knn"
    assert given["resume"] is False
    assert given["json"] is None


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("RUN", "required: --store"),
        ("--store a", "required: RUN"),
        ("RUN --store a --method best", "invalid choice: 'best'"),
        ("RUN --store a --workers two", "invalid int value: 'two'"),
        ("RUN --store a --max 3", "unrecognized arguments"),
        ("RUN --store a --hidden 3", "unrecognized arguments"),
    ],
)
def test_faults_are_input_errors_that_point_to_the_help(parser, line, part):
    with pytest.raises(InputError) as caught:
        parser.parse_args(line.split())
    assert part in str(caught.value)
    assert "See `lexicell verb --help`." in str(caught.value)


def test_the_help_explains_every_option(parser):
    text = " ".join(parser.format_help().split())
    for part in (
        "Do something. At 100% of the cells.", "The run, on two lines.", "Another one.", "--store STORE Stores.",
        "--levels A,B Levels.", "--method {knn,head} How. (default: knn)", "At most 5%.",
        "--workers N Processes. (default: 1)",
        "--resume Go on.", "--json FILE",
    ):  # fmt: skip
        assert part in text
    assert "Returns" not in text


def test_parameter_docs_of_a_docstring_without_parameters():
    assert parameter_docs("Do something.\n\nReturns\n-------\nint\n    A number.") == {}


@dataclass(frozen=True)
class Bundle:
    """Options that belong together.

    Attributes
    ----------
    depth
        How deep.
    names
        Names.
    """

    depth: int = 3
    names: list[str] = field(default_factory=list)


def bundled(run: Path, *, bundle: Bundle, numbers: tuple[int, ...] = ()) -> None:
    """Do something.

    Parameters
    ----------
    run
        The run.
    bundle
        Said by the class.
    numbers
        Numbers.
    """


def test_a_dataclass_stands_for_its_fields():
    parser = build_parser(bundled, "lexicell bundled")
    line = "RUN --depth 5 --names a --names b --numbers 1,20"
    assert parser.read(line.split()) == {
        "run": Path("RUN"),
        "bundle": Bundle(5, ["a", "b"]),
        "numbers": (1, 20),
        "json": None,
    }
    assert parser.read(["RUN"])["bundle"] == Bundle()
    assert "--depth N" in parser.format_help()
    assert "How deep. (default: 3)" in " ".join(parser.format_help().split())
    with pytest.raises(InputError, match="expected whole numbers with commas between, got '1,x'"):
        parser.read(["RUN", "--numbers", "1,x"])
