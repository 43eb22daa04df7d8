"""The benchmark runner: task x competitor x seed -> one tidy table of predictions, then scores and intervals.

The runner knows no method and no metric: competitors and metrics are callables that the caller passes in, so that
any embedding, other people's too, can be judged by any score.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from lexicell.evaluation.splits import Fold
from lexicell.randomness import generator

Score = Callable[[npt.NDArray[np.int64], npt.NDArray[np.int64]], float]


@dataclass(frozen=True, eq=False)
class Task:
    """Cells to label, and how to split them.

    Attributes
    ----------
    name
        Data set.
    level
        Label level, such as ``cell_type``.
    counts
        Raw counts (n_cells, n_genes), CSR.
    labels
        Truth (n_cells,); missing is NaN, None or the empty text.
    folds
        Train and test rows; a cell is tested at most once.
    embeddings
        Arrays (n_cells, width) by name, for competitors that label by an embedding made elsewhere.
    groups
        Donor or batch (n_cells,), where known: intervals then resample whole groups.
    """

    name: str
    level: str
    counts: sparse.csr_matrix
    labels: npt.NDArray[np.object_]
    folds: Sequence[Fold]
    embeddings: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    groups: npt.NDArray[np.object_] | None = None


@dataclass(frozen=True, eq=False)
class Problem:
    """One fold as a competitor sees it: everything but the truth of the test cells."""

    task: str
    fold: str
    train_counts: sparse.csr_matrix
    train_labels: npt.NDArray[np.object_]
    test_counts: sparse.csr_matrix
    train_embeddings: Mapping[str, npt.NDArray[np.float32]]
    test_embeddings: Mapping[str, npt.NDArray[np.float32]]
    train_groups: npt.NDArray[np.object_] | None


Competitor = Callable[[Problem, int], npt.ArrayLike]  # (problem, seed) -> a label for each test cell


@dataclass(frozen=True, eq=False)
class Benchmark:
    """What `run_benchmark` found.

    Attributes
    ----------
    predictions
        One row a test cell, competitor and seed: task, level, fold, competitor, seed, cell (row of the task),
        group, truth, predicted.
    times
        One row a fold, competitor and seed: task, level, fold, competitor, seed, seconds (fit and predict).
    """

    predictions: pd.DataFrame
    times: pd.DataFrame

    def scores(self, metrics: Mapping[str, Score]) -> pd.DataFrame:
        """Return one row a task, level, competitor and seed: each metric over all folds together, and seconds.

        A metric gets the truth and the predictions as codes of one list of labels, missing as -1. Folds are
        pooled, so that rare labels are judged on all their cells.
        """
        keys = ["task", "level", "competitor", "seed"]
        seconds = self.times.groupby(keys, sort=False)["seconds"].sum().to_dict()
        rows = []
        for key, part in self.predictions.groupby(keys, sort=False):
            truth, guess = _codes(part["truth"], part["predicted"])
            found = {name: metric(truth, guess) for name, metric in metrics.items()}
            rows.append({**dict(zip(keys, key, strict=True)), **found, "seconds": float(seconds[key])})
        return pd.DataFrame(rows)


def run_benchmark(
    tasks: Iterable[Task],
    competitors: Mapping[str, Competitor],
    seeds: Sequence[int] = (0,),
    report: Callable[[str], None] | None = None,
) -> Benchmark:
    """Let every competitor label the test cells of every fold of every task, once per seed.

    Parameters
    ----------
    tasks
        What to label.
    competitors
        Name -> callable taking a `Problem` and a seed, returning a label for each test cell (missing where
        it abstains).
    seeds
        Given to the competitors, one run each.
    report
        Called with one line after each fold, for progress.
    """
    predictions, times = [], []
    for task in tasks:
        for fold in task.folds:
            problem = _problem(task, fold)
            for name, competitor in competitors.items():
                for seed in seeds:
                    about = {
                        "task": task.name,
                        "level": task.level,
                        "fold": fold.name,
                        "competitor": name,
                        "seed": seed,
                    }
                    began = time.perf_counter()
                    predicted = np.asarray(competitor(problem, seed), dtype=object)
                    seconds = time.perf_counter() - began
                    if predicted.shape != fold.test.shape:
                        raise ValueError(
                            f"competitor '{name}' gave labels of shape {predicted.shape} for the "
                            f"{len(fold.test)} test cells of {task.name}, {fold.name}."
                        )
                    groups = None if task.groups is None else np.asarray(task.groups)[fold.test]
                    columns = {
                        "cell": fold.test,
                        "group": groups,
                        "truth": task.labels[fold.test],
                        "predicted": predicted,
                    }
                    predictions.append(pd.DataFrame({**about, **columns}))
                    times.append({**about, "seconds": seconds})
                    if report is not None:
                        report(f"{task.name}, {task.level}, {fold.name}: {name}, seed {seed}, {seconds:.1f} s")
    return Benchmark(pd.concat(predictions, ignore_index=True), pd.DataFrame(times))


def paired_intervals(
    predictions: pd.DataFrame,
    baseline: str,
    metric: Score,
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Return each competitor's advantage over a baseline, with paired bootstrap intervals.

    In each resample, cells (or whole groups, where a task has at least two) are drawn with replacement, and both
    competitors are scored on the same draw; scores are averaged over seeds before the difference is taken.

    Parameters
    ----------
    predictions
        As in `Benchmark.predictions`.
    baseline
        The competitor to compare with.
    metric
        Score of two code arrays, truth and prediction.
    resamples, confidence, seed
        Number of draws, the interval's coverage, and what the draws are keyed by.

    Returns
    -------
    DataFrame
        One row a task, level and competitor: score, baseline_score, difference, low, high, resampled (``cells``
        or ``groups``). With few groups the interval is rough.
    """
    rows = []
    for (task, level), part in predictions.groupby(["task", "level"], sort=False):
        if baseline not in set(part["competitor"]):
            raise ValueError(f"baseline: '{baseline}' has no predictions for {task}, {level}.")
        tables = {name: _by_seed(own) for name, own in part.groupby("competitor", sort=False)}
        truth, groups = _shared_truth(part)
        coded = {name: [_codes(truth, guess.reindex(truth.index)) for guess in seeds] for name, seeds in tables.items()}
        draws = _draws(groups, resamples, generator(seed, "paired bootstrap", str(task), str(level)))
        scores = {name: _resampled(pairs, draws, metric) for name, pairs in coded.items()}
        tail = 50 * (1 - confidence)
        for name in tables:
            if name == baseline:
                continue
            gap = scores[name] - scores[baseline]
            low, high = np.nanpercentile(gap[1:], [tail, 100 - tail])
            rows.append(
                {
                    "task": task,
                    "level": level,
                    "competitor": name,
                    "score": scores[name][0],
                    "baseline_score": scores[baseline][0],
                    "difference": gap[0],
                    "low": low,
                    "high": high,
                    "resampled": "cells" if groups is None else "groups",
                }
            )
    return pd.DataFrame(rows)


def _problem(task: Task, fold: Fold) -> Problem:
    return Problem(
        task.name,
        fold.name,
        task.counts[fold.train],
        task.labels[fold.train],
        task.counts[fold.test],
        {name: array[fold.train] for name, array in task.embeddings.items()},
        {name: array[fold.test] for name, array in task.embeddings.items()},
        None if task.groups is None else np.asarray(task.groups)[fold.train],
    )


def _codes(truth: pd.Series, predicted: pd.Series) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    both = pd.concat([truth, predicted], ignore_index=True).replace("", None)
    codes = pd.factorize(both, sort=True)[0].astype(np.int64)
    return codes[: len(truth)], codes[len(truth) :]


def _by_seed(part: pd.DataFrame) -> list[pd.Series]:
    return [own.set_index("cell")["predicted"] for _, own in part.groupby("seed", sort=False)]


def _shared_truth(part: pd.DataFrame) -> tuple[pd.Series, npt.NDArray[np.int64] | None]:
    """Return the truth of each tested cell, and its group where there are at least two groups."""
    cells = part.drop_duplicates("cell").set_index("cell")
    groups, names = pd.factorize(cells["group"])
    return cells["truth"], groups.astype(np.int64) if len(names) > 1 and (groups >= 0).all() else None


def _draws(
    groups: npt.NDArray[np.int64] | None, resamples: int, rng: np.random.Generator
) -> Callable[[int], Iterable[npt.NDArray[np.int64]]]:
    """Return a function of the number of cells that gives the rows of each draw, the same ones every time."""
    seeds = rng.integers(0, 2**63, size=resamples)

    def draw(n_cells: int) -> Iterable[npt.NDArray[np.int64]]:
        members = None if groups is None else [np.flatnonzero(groups == g) for g in range(groups.max() + 1)]
        for seed in seeds:
            own = np.random.default_rng(seed)
            if members is None:
                yield own.integers(0, n_cells, size=n_cells)
            else:
                yield np.concatenate([members[g] for g in own.integers(0, len(members), size=len(members))])

    return draw


def _resampled(
    pairs: Sequence[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]],
    draws: Callable[[int], Iterable[npt.NDArray[np.int64]]],
    metric: Score,
) -> npt.NDArray[np.float64]:
    """Return the mean score over seeds: on all cells first, then on each draw."""
    rows = [np.arange(len(pairs[0][0])), *draws(len(pairs[0][0]))]
    return np.array([np.mean([metric(truth[at], guess[at]) for truth, guess in pairs]) for at in rows])
