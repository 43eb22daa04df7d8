import numpy as np
import pytest
from scipy import sparse

from lexicell.evaluation.runner import Answer, Competitor, Problem, Task, run_benchmark
from lexicell.evaluation.splits import leave_group_out
from lexicell.evaluation.unknown_types import unknown_aurocs, without_each_type


@pytest.fixture
def task() -> Task:
    labels = np.array((["x"] * 12 + ["y"] * 12 + ["rare"] * 2) * 2 + ["only b"] * 20, dtype=object)
    donors = np.repeat(["a", "b"], [26, 46])
    return Task("toy", "type", sparse.csr_matrix((72, 3)), labels, leave_group_out(donors))


def test_every_type_with_enough_cells_on_both_sides_is_left_out_once(task):
    left = without_each_type(task)
    assert [fold.name for fold in left.folds] == [f"{donor}, without {name}" for donor in "ab" for name in "xy"]
    first = left.folds[0]
    assert "x" not in set(task.labels[first.train])
    assert set(task.labels[first.train]) == {"y", "rare", "only b"}
    np.testing.assert_array_equal(first.unlabelled, first.train)
    np.testing.assert_array_equal(first.test, task.folds[0].test)


def test_areas_are_of_the_left_out_cells_against_those_of_learned_types(task):
    left = without_each_type(task)

    def knowing(sign: float) -> Competitor:
        def answer(problem: Problem, seed: int) -> Answer:
            seen = np.isin(task.labels[problem.test], problem.train_labels)
            return Answer([None] * len(problem.test), sign * seen.astype(float))

        return Competitor(answer, seeded=False)

    chosen = {"oracle": knowing(1.0), "liar": knowing(-1.0), "same": knowing(0.0)}
    table = unknown_aurocs(run_benchmark([left], chosen).predictions, left)
    for name, area in {"oracle": 1.0, "liar": 0.0, "same": 0.5}.items():
        assert set(table.loc[table["competitor"] == name, "auroc"]) == {area}
    row = table[(table["fold"] == "b, without x") & (table["competitor"] == "oracle")].iloc[0]
    # Learned of donor a are y and rare; what only donor b has is neither known nor left out.
    assert (row["left_out"], row["n_unknown"], row["n_known"]) == ("x", 12, 14)


def test_a_task_without_such_types_is_refused(task):
    with pytest.raises(ValueError, match="no type has 3 cells to learn from and 99 to test"):
        without_each_type(task, fewest_tested=99)
