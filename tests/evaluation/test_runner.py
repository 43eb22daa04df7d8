from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from lexicell.evaluation.runner import Answer, Competitor, Problem, Task, run_benchmark
from lexicell.evaluation.splits import Fold, stratified_folds


def hit_rate(truth: np.ndarray, guess: np.ndarray) -> float:
    return float(np.mean(truth == guess))


@pytest.fixture
def task() -> Task:
    rng = np.random.default_rng(0)
    labels = rng.choice(["x", "y"], size=120).astype(object)
    known = (labels == "x").astype(np.float32)[:, None]
    return Task(
        "toy",
        "type",
        sparse.csr_matrix(rng.poisson(1.0, size=(120, 5))),
        labels,
        stratified_folds(labels, 3, seed=0),
        {"truth": known},
    )


def competitor(label, seeded: bool = True) -> Competitor:
    """A competitor from a function (problem, seed) -> labels."""
    return Competitor(lambda problem, seed: Answer(label(problem, seed)), seeded)


oracle = competitor(lambda problem, seed: np.where(problem.test_embeddings["truth"][:, 0] > 0, "x", "y"))
coin = competitor(
    lambda problem, seed: np.random.default_rng(seed).choice(["x", "y"], size=problem.test_counts.shape[0])
)
silent = competitor(lambda problem, seed: [None] * problem.test_counts.shape[0])


def test_every_competitor_labels_every_cell_once_a_seed(task):
    lines: list[str] = []
    bench = run_benchmark([task], {"oracle": oracle, "coin": coin}, seeds=(0, 1), report=lines.append)
    assert len(bench.predictions) == 120 * 2 * 2
    assert not bench.predictions.duplicated(["competitor", "seed", "cell"]).any()
    assert len(bench.times) == len(lines) == 3 * 2 * 2
    assert lines[0].startswith("toy, type, fold 1: oracle, seed 0")
    scores = bench.scores({"accuracy": hit_rate}).set_index(["competitor", "seed"])
    assert scores.loc[("oracle", 0), "accuracy"] == 1
    assert 0.3 < scores.loc[("coin", 1), "accuracy"] < 0.7
    assert (scores["seconds"] >= 0).all()
    assert scores["fit_seconds"].isna().all()  # nobody told them apart


def test_a_missing_prediction_reaches_the_metric_as_minus_one(task):
    bench = run_benchmark([task], {"silent": silent})
    scores = bench.scores({"coverage": lambda truth, guess: float(np.mean(guess >= 0))})
    assert list(scores["coverage"]) == [0.0]


def test_competitors_see_no_test_truth_and_only_their_rows(task):
    def check(problem: Problem, seed: int) -> list[str]:
        assert len(problem.train_labels) == problem.train_counts.shape[0] == 80
        assert problem.train_embeddings["truth"].shape == (80, 1)
        assert not hasattr(problem, "test_labels")
        return ["x"] * problem.test_counts.shape[0]

    run_benchmark([task], {"check": competitor(check)})


def test_labels_for_other_cells_are_refused(task):
    with pytest.raises(ValueError, match=r"competitor 'short' gave labels of shape \(1,\)"):
        run_benchmark([task], {"short": competitor(lambda problem, seed: ["x"])})


def test_what_the_seed_does_not_change_is_run_once(task):
    bench = run_benchmark([task], {"oracle": Competitor(oracle.answer, seeded=False)}, seeds=(4, 5))
    assert set(bench.predictions["seed"]) == {4}


def test_kept_answers_are_not_asked_again(task, tmp_path):
    first = run_benchmark([task], {"coin": coin}, seeds=(0, 1), folder=tmp_path)

    def fails(problem: Problem, seed: int) -> list[str]:
        raise AssertionError("asked again")

    again = run_benchmark([task], {"coin": competitor(fails)}, seeds=(0, 1), folder=tmp_path)
    pd.testing.assert_frame_equal(first.predictions, again.predictions)
    pd.testing.assert_frame_equal(first.times, again.times)


def test_a_kept_answer_is_of_its_competitor_its_cells_and_its_folds_alone(task, tmp_path):
    def asked(changed: Task, made_of: str = "first") -> int:
        lines: list[str] = []
        run_benchmark([changed], {"oracle": Competitor(oracle.answer, made_of=made_of)}, (0,), lines.append, tmp_path)
        return len(lines)

    assert asked(task) == 3
    assert asked(task) == 0
    assert asked(task, "retrained") == 3
    fewer = [Fold(fold.name, fold.train[1:], fold.test) for fold in task.folds]
    assert asked(replace(task, folds=fewer)) == 3
    assert asked(replace(task, made_of="another store")) == 3
    renamed = np.where(task.labels == "x", "z", task.labels).astype(object)
    assert asked(replace(task, labels=renamed)) == 3
    assert asked(task) == 0


def test_the_pool_is_what_may_be_trained_on_unless_more_is_given(task):
    pools = []

    def keep(problem: Problem, seed: int) -> list[str]:
        pools.append(problem.pool)
        return ["x"] * len(problem.test)

    first, second = task.folds[:2]
    folds = [first, Fold(second.name, second.train[:10], second.test, second.train)]
    run_benchmark([replace(task, folds=folds)], {"keep": competitor(keep)})
    np.testing.assert_array_equal(pools[0], first.train)
    np.testing.assert_array_equal(pools[1], second.train)


def test_the_confidence_is_kept(task):
    def half_sure(problem: Problem, seed: int) -> Answer:
        n = problem.test_counts.shape[0]
        return Answer(["x"] * n, np.full(n, 0.5))

    assert (run_benchmark([task], {"half": Competitor(half_sure)}).predictions["confidence"] == 0.5).all()


def test_times_to_fit_and_to_predict_are_added_up_over_folds(task):
    def timed(problem: Problem, seed: int) -> Answer:
        return Answer(["x"] * len(problem.test), seconds=(2.0, 0.5))

    bench = run_benchmark([task], {"timed": Competitor(timed)})
    (row,) = bench.scores({"accuracy": hit_rate}).to_dict("records")
    assert (row["fit_seconds"], row["predict_seconds"], row["seconds"]) == (6.0, 1.5, 7.5)


def test_paths_end_in_the_level_itself(task):
    def check(problem: Problem, seed: int) -> list[str]:
        assert list(problem.train_paths.columns) == ["type"]
        assert (problem.train_paths["type"] == problem.train_labels).all()
        return ["x"] * len(problem.test)

    run_benchmark([task], {"check": competitor(check)})
