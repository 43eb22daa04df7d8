import numpy as np

from lexicell.evaluation.identity import identity


def test_any_change_of_a_part_shows():
    numbers = np.arange(6)
    made = [
        identity("a", numbers),
        identity("b", numbers),
        identity(numbers, "a"),
        identity("a", numbers[::-1]),
        identity("a", numbers.reshape(2, 3)),
        identity("a", numbers.astype(np.int32)),
        identity("a", np.array(["x", "yz"], dtype=object)),
        identity("a", np.array(["xy", "z"], dtype=object)),
        identity("ab"),
        identity("a", "b"),
    ]
    assert len(set(made)) == len(made)
    assert identity("a", np.arange(12)[::2]) == identity("a", np.arange(0, 12, 2))
