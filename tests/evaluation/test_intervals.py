import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from lexicell.evaluation.intervals import paired_intervals
from lexicell.evaluation.runner import Answer, Competitor, Problem, Task, run_benchmark
from lexicell.evaluation.splits import leave_group_out, stratified_folds


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


def test_paired_intervals_tell_a_real_difference_from_none(task):
    competitors = {"coin": coin, "oracle": oracle, "coin again": coin}
    bench = run_benchmark([task], competitors, seeds=(0, 1, 2))
    found = paired_intervals(bench.predictions, "coin", hit_rate, resamples=200).set_index("competitor")
    assert found.loc["oracle", "low"] > 0.2
    assert found.loc["oracle", "difference"] == pytest.approx(1 - found.loc["oracle", "baseline_score"])
    same = found.loc["coin again", ["difference", "low", "high"]]
    np.testing.assert_array_equal(same.to_numpy(dtype=float), 0)
    again = paired_intervals(bench.predictions, "coin", hit_rate, resamples=200)
    pd.testing.assert_frame_equal(again, found.reset_index()[again.columns])


def test_an_interval_covers_what_seeds_differ_by(task):
    by_luck = competitor(  # right throughout with every other seed, wrong throughout with the others
        lambda problem, seed: np.where((problem.test_embeddings["truth"][:, 0] > 0) ^ (seed % 2 == 1), "x", "y")
    )
    bench = run_benchmark([task], {"steady": coin, "by luck": by_luck}, seeds=(0, 1, 2, 3))
    found = paired_intervals(bench.predictions, "steady", hit_rate, resamples=300).set_index("competitor")
    low, high = found.loc["by luck", ["low", "high"]]
    assert found.loc["by luck", "score"] == 0.5
    assert low < -0.3
    assert high > 0.3


def test_groups_are_resampled_whole():
    labels = np.array(["x"] * 60, dtype=object)
    groups = np.repeat(["a", "b", "c", "d", "e"], 12)
    task = Task("toy", "t", sparse.csr_matrix((60, 2)), labels, leave_group_out(groups), groups=groups)

    def fails_in_one_group(problem: Problem, seed: int) -> list[str]:
        return ["y" if problem.fold == "a" else "x"] * problem.test_counts.shape[0]

    always = {
        "base": competitor(lambda problem, seed: ["x"] * problem.test_counts.shape[0]),
        "bad": competitor(fails_in_one_group),
    }
    found = paired_intervals(run_benchmark([task], always).predictions, "base", hit_rate, resamples=300)
    assert found.loc[0, "resampled"] == "groups"
    assert found.loc[0, "difference"] == pytest.approx(-0.2)
    assert found.loc[0, "low"] < -0.35  # of cells alone, about -.3


def test_of_several_baselines_the_best_one_counts(task):
    always = {
        "coin": coin,
        "oracle": oracle,
        "half": competitor(lambda problem, seed: ["x"] * problem.test_counts.shape[0]),
    }
    predictions = run_benchmark([task], always, seeds=(0, 1)).predictions
    found = paired_intervals(predictions, ("coin", "oracle", "absent"), hit_rate, resamples=50)
    assert set(found["baseline"]) == {"oracle"}
    assert set(found["competitor"]) == {"coin", "half"}
    pd.testing.assert_frame_equal(found, paired_intervals(predictions, "oracle", hit_rate, resamples=50))


def test_an_absent_baseline_is_refused(task):
    bench = run_benchmark([task], {"coin": coin})
    with pytest.raises(ValueError, match="baseline: 'oracle' has no predictions for toy, type"):
        paired_intervals(bench.predictions, "oracle", hit_rate)


def test_a_baseline_alone_has_no_intervals_but_their_columns(task):
    table = paired_intervals(run_benchmark([task], {"oracle": oracle}).predictions, "oracle", hit_rate)
    assert table.empty
    assert {"task", "level", "competitor", "low", "high"} <= set(table)
