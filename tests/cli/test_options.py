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
