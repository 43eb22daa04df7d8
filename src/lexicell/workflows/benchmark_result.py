"""What the annotation benchmark found: scores, times and paired intervals, as tables, files and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from lexicell.annotation.calibration import expected_calibration_error
from lexicell.annotation.scores import accuracy, macro_f1
from lexicell.evaluation.intervals import paired_intervals
from lexicell.evaluation.runner import Benchmark
from lexicell.reporting.benchmark_figures import competitor_intervals, learning_curves
from lexicell.reporting.figures import to_svg
from lexicell.reporting.text import Table


@dataclass(frozen=True, eq=False)
class BenchmarkResult:
    """What the competitors came to."""

    scores: pd.DataFrame
    """task, level, competitor, seed, accuracy, macro_f1, calibration_error; fit_seconds, predict_seconds and their sum,
    seconds. Times are over all folds, and count the embedding of the cells, but not a pretraining, nor the making of an
    embedding elsewhere.
    """
    intervals: pd.DataFrame
    """Macro-F1 of each competitor beside that of the named baseline: difference, low, high (95%, paired bootstrap)."""
    baselines: tuple[str, ...]
    """Whom the others are compared with; of several, the best one on each task and level."""
    written: tuple[Path, ...]
    """Files written."""

    def summary(self) -> pd.DataFrame:
        """Return the mean over seeds, one row a task, level and competitor."""
        keys = ["task", "level", "competitor"]
        return self.scores.groupby(keys, sort=False).mean(numeric_only=True).drop(columns="seed").reset_index()

    def figures(self) -> dict[str, Any]:
        """Return the figures for programs."""
        tasks: dict[str, dict[str, Any]] = {}
        for row in self.summary().to_dict("records"):
            level = tasks.setdefault(row.pop("task"), {}).setdefault(row.pop("level"), {})
            level[row.pop("competitor")] = row
        for row in self.intervals.to_dict("records"):
            own = tasks[row["task"]][row["level"]][row["competitor"]]
            own["macro_f1_difference"] = {name: row[name] for name in ("baseline", "difference", "low", "high")}
        return {"tasks": tasks, "baselines": list(self.baselines), "out": [str(path) for path in self.written]}

    def tables(self) -> list[Table]:
        """Return the figures for people: one table a task and level, the best macro-F1 first."""
        gaps = {(row["task"], row["level"], row["competitor"]): row for row in self.intervals.to_dict("records")}
        tables = []
        for (task, level), part in self.summary().groupby(["task", "level"], sort=False):
            rows: list[tuple[object, ...]] = []
            baseline = next((own["baseline"] for key, own in gaps.items() if key[:2] == (task, level)), "")
            for row in part.sort_values("macro_f1", ascending=False).itertuples():
                gap: object = ""
                own = gaps.get((task, level, row.competitor))
                if own is not None:
                    gap = f"{own['difference']:+.3f} ({own['low']:+.3f} to {own['high']:+.3f})"
                times = row.fit_seconds, row.predict_seconds
                rows.append((row.competitor, row.accuracy, row.macro_f1, gap, row.calibration_error, *times))
            against = f"against {'the best, ' if len(self.baselines) > 1 else ''}{baseline}"
            columns = ("competitor", "accuracy", "macro-F1", against, "calibration error", "s to fit", "s to predict")
            tables.append(Table(f"{task}, {level}", columns, tuple(rows)))
        return [*tables, Table("Written", ("",), tuple((str(path),) for path in self.written))]


def result_of(
    bench: Benchmark, folder: Path, baselines: tuple[str, ...], labelled: Sequence[int] = ()
) -> BenchmarkResult:
    """Score a benchmark, write its tables and its picture into a folder.

    Parameters
    ----------
    bench
        The answers.
    folder
        Where scores.csv, intervals.csv and macro_f1.svg and .png go.
    baselines
        Whom the others are compared with; of several, the best one on each task and level.
    labelled
        Numbers of labelled cells a label, where the answers make learning curves.
    """
    scores = bench.scores({"accuracy": accuracy, "macro_f1": macro_f1})
    keys = ["task", "level", "competitor", "seed"]
    errors = [(*key, _calibration_error(part)) for key, part in bench.predictions.groupby(keys, sort=False)]
    scores = scores.merge(pd.DataFrame(errors, columns=[*keys, "calibration_error"]), on=keys)
    intervals = paired_intervals(bench.predictions, baselines, macro_f1)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, table in (("scores", scores), ("intervals", intervals)):
        path = folder / f"{name}.csv"
        table.to_csv(path, index=False)
        written.append(path)
    if labelled:
        picture = learning_curves(scores, labelled)
    else:  # the line of the baseline is drawn where it is one and the same
        picture = competitor_intervals(scores, intervals, baselines[0] if len(baselines) == 1 else "")
    (folder / "macro_f1.svg").write_text(to_svg(picture), encoding="utf-8")
    picture.savefig(folder / "macro_f1.png", dpi=180)
    written += [folder / "macro_f1.svg", folder / "macro_f1.png"]
    return BenchmarkResult(scores, intervals, baselines, tuple(written))


def _calibration_error(part: pd.DataFrame) -> float:
    known = part["confidence"].notna() & (part["truth"].fillna("") != "")
    right = (part["predicted"] == part["truth"])[known].to_numpy(dtype=bool)
    return expected_calibration_error(part.loc[known, "confidence"].to_numpy(dtype=float), right)
