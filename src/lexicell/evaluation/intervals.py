"""Is a competitor better, or was it luck? Paired bootstrap intervals over cells or whole groups, and over seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from lexicell.evaluation.runner import Score, codes_of
from lexicell.randomness import generator

Int64 = npt.NDArray[np.int64]

COLUMNS = (
    "task",
    "level",
    "competitor",
    "baseline",
    "score",
    "baseline_score",
    "difference",
    "low",
    "high",
    "resampled",
)
FEWEST_GROUPS = 5  # whole groups are drawn from so many on; draws of fewer are too alike to tell anything


def paired_intervals(
    predictions: pd.DataFrame,
    baseline: str | Sequence[str],
    metric: Score,
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Return each competitor's advantage over a baseline, with paired bootstrap intervals.

    In each resample, cells (or whole groups, where a task has at least five) are drawn with replacement, and so are
    seeds; both competitors are scored on the same draw, and scores are averaged over its seeds before the difference is
    taken. So an interval covers what test cells and, where there are several seeds, training cells and weights were
    drawn.

    Parameters
    ----------
    predictions
        As in `Benchmark.predictions`.
    baseline
        The competitor to compare with; of several, the one with the best score on each task and level. (Which that is
        was then chosen on these very cells, which flatters the baseline.)
    metric
        Score of two code arrays, truth and prediction.
    resamples, confidence, seed
        Number of draws, the interval's coverage, and what the draws are keyed by.

    Returns
    -------
    DataFrame
        One row a task, level and competitor: baseline (its name), score, baseline_score, difference, low, high,
        resampled (``cells`` or ``groups``). With few groups or seeds the interval is rough.
    """
    rows, others = [], [baseline] if isinstance(baseline, str) else list(baseline)
    for (task, level), part in predictions.groupby(["task", "level"], sort=False):
        present = [name for name in others if name in set(part["competitor"])]
        if not present:
            raise ValueError(f"baseline: {' or '.join(map(repr, others))} has no predictions for {task}, {level}.")
        tables = {name: _by_seed(own) for name, own in part.groupby("competitor", sort=False)}
        truth, groups = _shared_truth(part)
        coded = {
            name: [codes_of(truth, guess.reindex(truth.index)) for guess in seeds] for name, seeds in tables.items()
        }
        draws = _draws(groups, resamples, generator(seed, "paired bootstrap", str(task), str(level)))
        scores = {name: _resampled(pairs, draws, metric) for name, pairs in coded.items()}
        best = max(present, key=lambda name: float(scores[name][0]))
        tail = 50 * (1 - confidence)
        for name in tables:
            if name == best:
                continue
            gap = scores[name] - scores[best]
            low, high = np.nanpercentile(gap[1:], [tail, 100 - tail])
            rows.append(
                {
                    "task": task,
                    "level": level,
                    "competitor": name,
                    "baseline": best,
                    "score": scores[name][0],
                    "baseline_score": scores[best][0],
                    "difference": gap[0],
                    "low": low,
                    "high": high,
                    "resampled": "cells" if groups is None else "groups",
                }
            )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _by_seed(part: pd.DataFrame) -> list[pd.Series]:
    return [own.set_index("cell")["predicted"] for _, own in part.groupby("seed", sort=False)]


def _shared_truth(part: pd.DataFrame) -> tuple[pd.Series, Int64 | None]:
    """Return the truth of each tested cell, and its group where there are at least `FEWEST_GROUPS`."""
    cells = part.drop_duplicates("cell").set_index("cell")
    groups, names = pd.factorize(cells["group"])
    return cells["truth"], groups.astype(np.int64) if len(names) >= FEWEST_GROUPS and (groups >= 0).all() else None


def _draws(
    groups: Int64 | None, resamples: int, rng: np.random.Generator
) -> Callable[[int, int], Iterable[tuple[Int64, Int64]]]:
    """Return a function of the numbers of cells and seeds that gives each draw's rows and seeds, always the same."""
    seeds = rng.integers(0, 2**63, size=resamples)

    def draw(n_cells: int, n_seeds: int) -> Iterable[tuple[Int64, Int64]]:
        members = None if groups is None else [np.flatnonzero(groups == g) for g in range(groups.max() + 1)]
        for seed in seeds:
            own = np.random.default_rng(seed)
            if members is None:
                rows = own.integers(0, n_cells, size=n_cells)
            else:
                rows = np.concatenate([members[g] for g in own.integers(0, len(members), size=len(members))])
            yield rows, own.integers(0, n_seeds, size=n_seeds)

    return draw


def _resampled(
    pairs: Sequence[tuple[Int64, Int64]],
    draws: Callable[[int, int], Iterable[tuple[Int64, Int64]]],
    metric: Score,
) -> npt.NDArray[np.float64]:
    """Return the mean score over seeds: on all cells first, then on each draw."""
    n_cells, n_seeds = len(pairs[0][0]), len(pairs)
    everything = np.arange(n_cells), np.arange(n_seeds)
    means = []
    for rows, seeds in (everything, *draws(n_cells, n_seeds)):
        chosen, times = np.unique(seeds, return_counts=True)
        scores = [metric(pairs[seed][0][rows], pairs[seed][1][rows]) for seed in chosen]
        means.append(np.average(scores, weights=times))
    return np.array(means)
