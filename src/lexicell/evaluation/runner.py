"""The benchmark runner: task x competitor x seed -> one tidy table of predictions, then scores and intervals.

The runner knows no method and no metric: competitors and metrics are callables that the caller passes in, so that
any embedding, other people's too, can be judged by any score.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from lexicell.evaluation.identity import identity
from lexicell.evaluation.splits import Fold

TIMES = ("fit_seconds", "predict_seconds", "seconds")
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
    paths
        Labels from the coarsest level to this one (n_cells, n_levels), for competitors that go down the tree; this
        level alone unless given.
    made_of
        What tells these cells from others of the same name, such as a store's fingerprint; kept answers are of it.
    """

    name: str
    level: str
    counts: sparse.csr_matrix
    labels: npt.NDArray[np.object_]
    folds: Sequence[Fold]
    embeddings: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    groups: npt.NDArray[np.object_] | None = None
    paths: pd.DataFrame | None = None
    made_of: str = ""


@dataclass(frozen=True, eq=False)
class Problem:
    """One fold as a competitor sees it: everything but the truth of the test cells."""

    task: str
    level: str
    fold: str
    train: npt.NDArray[np.int64]  # rows of the task
    test: npt.NDArray[np.int64]
    pool: npt.NDArray[np.int64]  # rows that may be learned from without labels
    train_counts: sparse.csr_matrix
    train_labels: npt.NDArray[np.object_]
    test_counts: sparse.csr_matrix
    train_embeddings: Mapping[str, npt.NDArray[np.float32]]
    test_embeddings: Mapping[str, npt.NDArray[np.float32]]
    train_groups: npt.NDArray[np.object_] | None
    train_paths: pd.DataFrame  # (n_train, n_levels) coarse to fine, the last one is this task's level


@dataclass(frozen=True, eq=False)
class Answer:
    """What a competitor gives back.

    Attributes
    ----------
    labels
        A label for each test cell; missing where it abstains.
    confidence
        Probability that the label is right (n_test,), where the competitor gives one.
    seconds
        Time to fit and time to predict, where they can be told apart; the runner itself clocks the whole answer.
    """

    labels: npt.ArrayLike
    confidence: npt.NDArray[np.floating] | None = None
    seconds: tuple[float, float] | None = None


@dataclass(frozen=True)
class Competitor:
    """A method that labels cells.

    Attributes
    ----------
    answer
        Takes a problem and a seed.
    seeded
        False where the seed changes nothing: then it is run for the first seed alone.
    made_of
        What tells it from others of its name, such as an identity of its weights; kept answers are of it.
    """

    answer: Callable[[Problem, int], Answer]
    seeded: bool = True
    made_of: str = ""

    @classmethod
    def without_seed(cls, answer: Callable[[Problem], Answer], made_of: str = "") -> Competitor:
        """Return a competitor whose answer depends on the problem alone."""
        return cls(lambda problem, _: answer(problem), seeded=False, made_of=made_of)


@dataclass(frozen=True, eq=False)
class Benchmark:
    """What `run_benchmark` found.

    Attributes
    ----------
    predictions
        One row a test cell, competitor and seed: task, level, fold, competitor, seed, cell (row of the task),
        group, truth, predicted, confidence.
    times
        One row a fold, competitor and seed: task, level, fold, competitor, seed, fit_seconds and predict_seconds (NaN
        where a competitor does not tell them apart), and seconds, their sum or else the time of the whole answer.
    """

    predictions: pd.DataFrame
    times: pd.DataFrame

    @classmethod
    def join(cls, parts: Sequence[Benchmark]) -> Benchmark:
        """Put together what was found apart, for other tasks or seeds."""
        predictions, times = ([getattr(part, name) for part in parts] for name in ("predictions", "times"))
        return cls(pd.concat(predictions, ignore_index=True), pd.concat(times, ignore_index=True))

    def scores(self, metrics: Mapping[str, Score]) -> pd.DataFrame:
        """Return one row a task, level, competitor and seed: each metric over all folds together, and all `TIMES`.

        A metric gets the truth and the predictions as codes of one list of labels, missing as -1. Folds are
        pooled, so that rare labels are judged on all their cells.
        """
        keys = ["task", "level", "competitor", "seed"]
        spent = self.times.groupby(keys, sort=False)[list(TIMES)].sum(min_count=1).to_dict("index")
        rows = []
        for key, part in self.predictions.groupby(keys, sort=False):
            truth, guess = codes_of(part["truth"], part["predicted"])
            found = {name: metric(truth, guess) for name, metric in metrics.items()}
            about: dict[str, Any] = dict(zip(keys, key, strict=True))
            rows.append(about | found | {name: float(spent[key][name]) for name in TIMES})
        return pd.DataFrame(rows)


def run_benchmark(
    tasks: Iterable[Task],
    competitors: Mapping[str, Competitor],
    seeds: Sequence[int] = (0,),
    report: Callable[[str], None] | None = None,
    folder: Path | None = None,
) -> Benchmark:
    """Let every competitor label the test cells of every fold of every task, once per seed.

    Parameters
    ----------
    tasks
        What to label.
    competitors
        By name.
    seeds
        Given to the competitors, one run each.
    report
        Called with one line after each fold, for progress.
    folder
        Keeps every answer, so that a benchmark that was interrupted goes on, and a new competitor joins the others.
        An answer is only taken up again for the same cells, labels and folds, and for a competitor made of the same.
    """
    predictions, times = [], []
    for task in tasks:
        for fold in task.folds:
            problem, cells = _problem(task, fold), _cells(task, fold)
            for name, competitor in competitors.items():
                for seed in seeds if competitor.seeded else seeds[:1]:
                    about = {
                        "task": task.name,
                        "level": task.level,
                        "fold": fold.name,
                        "competitor": name,
                        "seed": seed,
                    }
                    key = [*map(_slug, about.values()), identity(cells, competitor.made_of)]
                    kept = folder / f"{'-'.join(key)}.parquet" if folder else None
                    table = pd.read_parquet(kept) if kept and kept.is_file() else None
                    if table is None:
                        table = _answer(task, fold, problem, competitor, about)
                        if kept:
                            _keep(table, kept)
                        if report is not None:
                            seconds = table["seconds"].iloc[0]
                            report(f"{task.name}, {task.level}, {fold.name}: {name}, seed {seed}, {seconds:.1f} s")
                    predictions.append(table.drop(columns=list(TIMES), errors="ignore"))
                    spent = table.reindex(columns=list(TIMES)).iloc[0]
                    times.append({**about, **{name: float(spent[name]) for name in TIMES}})
    return Benchmark(pd.concat(predictions, ignore_index=True), pd.DataFrame(times))


def _answer(
    task: Task, fold: Fold, problem: Problem, competitor: Competitor, about: Mapping[str, object]
) -> pd.DataFrame:
    began = time.perf_counter()
    answer = competitor.answer(problem, int(str(about["seed"])))
    predicted = np.asarray(answer.labels, dtype=object)
    fit, predict = answer.seconds or (np.nan, np.nan)
    seconds = time.perf_counter() - began if np.isnan(fit) else fit + predict
    if predicted.shape != fold.test.shape:
        raise ValueError(
            f"competitor '{about['competitor']}' gave labels of shape {predicted.shape} for the "
            f"{len(fold.test)} test cells of {task.name}, {fold.name}."
        )
    columns = {
        "cell": fold.test,
        "group": None if task.groups is None else np.asarray(task.groups)[fold.test],
        "truth": task.labels[fold.test],
        "predicted": predicted,
        "confidence": np.nan if answer.confidence is None else answer.confidence,
        **dict(zip(TIMES, (fit, predict, seconds), strict=True)),
    }
    return pd.DataFrame({**about, **columns})


def _keep(table: pd.DataFrame, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    table.to_parquet(part)
    part.replace(path)


def _cells(task: Task, fold: Fold) -> str:
    """Return the identity of a fold: its cells, what may be learned of them, and the truth."""
    paths = _paths(task)
    rows = fold.train, fold.test, fold.unlabelled
    labels = paths.columns, paths.iloc[fold.train], task.labels[fold.test]
    return identity(task.made_of, *rows, *(np.asarray(part, dtype=object) for part in labels))


def _paths(task: Task) -> pd.DataFrame:
    return pd.DataFrame({task.level: task.labels}) if task.paths is None else task.paths


def _slug(value: object) -> str:
    return re.sub(r"\W+", "_", str(value)).strip("_")


def _problem(task: Task, fold: Fold) -> Problem:
    return Problem(
        task.name,
        task.level,
        fold.name,
        fold.train,
        fold.test,
        fold.unlabelled,
        task.counts[fold.train],
        task.labels[fold.train],
        task.counts[fold.test],
        {name: array[fold.train] for name, array in task.embeddings.items()},
        {name: array[fold.test] for name, array in task.embeddings.items()},
        None if task.groups is None else np.asarray(task.groups)[fold.train],
        _paths(task).iloc[fold.train],
    )


def codes_of(truth: pd.Series, predicted: pd.Series) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return truth and predictions as codes of one sorted list of labels, missing as -1."""
    both = pd.concat([truth, predicted], ignore_index=True).replace("", None)
    codes = pd.factorize(both, sort=True)[0].astype(np.int64)
    return codes[: len(truth)], codes[len(truth) :]
