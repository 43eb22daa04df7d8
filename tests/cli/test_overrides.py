import pytest

from lexicell.cli.overrides import read_value, split_overrides
from lexicell.errors import InputError

FLAGS = {"--store", "--out", "--resume"}


def test_overrides_are_told_from_the_verbs_own_options():
    line = "--optim.lr 3e-4 tiny --store a --trunk.width=64 --resume --name=--odd --shift -1 --store b --seed-count 3"
    own, overrides = split_overrides(line.split(), FLAGS)
    assert own == ["tiny", "--store", "a", "--resume", "--store", "b"]
    assert overrides == {"optim.lr": 3e-4, "trunk.width": 64, "name": "--odd", "shift": -1, "seed_count": 3}


@pytest.mark.parametrize("line", ["--optim.lr", "tiny --optim.lr --store a"])
def test_an_override_without_a_value_is_refused(line):
    with pytest.raises(InputError, match=r"--optim\.lr: expected a value"):
        split_overrides(line.split(), FLAGS)


def test_what_follows_two_dashes_is_left_alone():
    assert split_overrides(["--a", "1", "--", "--b"], FLAGS) == (["--", "--b"], {"a": 1})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3), ("-3", -3), ("3e-4", 3e-4), ("1E5", 1e5), (".5", 0.5), ("true", True), ("null", None),
        ("[1, a]", [1, "a"]),
        ("bf16", "bf16"), ("{a: 1}", {"a": 1}), ("{broken", "{broken"), ("", None), ("1_000", 1000),
    ],
)  # fmt: skip
def test_values_are_read_as_yaml_and_numbers_as_numbers(text, value):
    found = read_value(text)
    assert found == value
    assert type(found) is type(value)
