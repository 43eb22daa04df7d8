"""Annotation side by side: lexicell's methods, other tools and any embedding, on the same cells and splits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from lexicell.annotation.calibration import expected_calibration_error
from lexicell.annotation.methods import ProbeMethod
from lexicell.annotation.scores import accuracy, macro_f1
from lexicell.data.store import Store
from lexicell.errors import InputError, listing
from lexicell.evaluation.identity import identity
from lexicell.evaluation.intervals import paired_intervals
from lexicell.evaluation.runner import Answer, Benchmark, Competitor, Problem, run_benchmark
from lexicell.inference.cell_model import CellModel
from lexicell.reporting.benchmark_figures import competitor_intervals, learning_curves
from lexicell.reporting.figures import to_svg
from lexicell.reporting.text import Table
from lexicell.workflows.benchmark_competitors import (
    choose_tools,
    embed_store,
    embedding_competitors,
    method_competitor,
    model_identity,
    read_embedding,
)
from lexicell.workflows.benchmark_options import Entrants
from lexicell.workflows.benchmark_tasks import store_tasks, with_few_labels
from lexicell.workflows.fold_models import FixedModel, FoldModels, finetune_competitor, untrained_model

BASELINE = "logistic_regression"
METHODS = ("knn", "linear", "probe", "counts", "finetune")


@dataclass(frozen=True, eq=False)
class BenchmarkResult:
    """What the competitors came to."""

    scores: pd.DataFrame
    """task, level, competitor, seed, accuracy, macro_f1, calibration_error, seconds."""
    intervals: pd.DataFrame
    """Macro-F1 of each competitor beside the baseline's: difference, low and high (95%, paired bootstrap)."""
    baseline: str
    """Whom the others are compared with."""
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
            own["macro_f1_difference"] = {name: row[name] for name in ("difference", "low", "high")}
        return {"tasks": tasks, "baseline": self.baseline, "out": [str(path) for path in self.written]}

    def tables(self) -> list[Table]:
        """Return the figures for people: one table a task and level, the best macro-F1 first."""
        gaps = {(row["task"], row["level"], row["competitor"]): row for row in self.intervals.to_dict("records")}
        tables = []
        for (task, level), part in self.summary().groupby(["task", "level"], sort=False):
            rows: list[tuple[object, ...]] = []
            for row in part.sort_values("macro_f1", ascending=False).itertuples():
                gap: object = ""
                own = gaps.get((task, level, row.competitor))
                if own is not None:
                    gap = f"{own['difference']:+.3f} ({own['low']:+.3f} to {own['high']:+.3f})"
                rows.append((row.competitor, row.accuracy, row.macro_f1, gap, row.calibration_error, row.seconds))
            columns = ("competitor", "accuracy", "macro-F1", f"against {self.baseline}", "calibration error", "seconds")
            tables.append(Table(f"{task}, {level}", columns, tuple(rows)))
        return [*tables, Table("Written", ("",), tuple((str(path),) for path in self.written))]


def benchmark_annotate(
    store: str | Path | Store,
    out: str | Path,
    *,
    split: str = "donor",
    entrants: Entrants | None = None,
    levels: Sequence[str] | None = None,
    labelled: Sequence[int] = (),
    min_cells: int = 1,
    seeds: int = 3,
    progress: bool = True,
) -> BenchmarkResult:
    """Let lexicell and other methods label the same held-out cells, and compare them.

    Every answer is kept in `out`: an interrupted benchmark goes on, and a further competitor joins the others.

    Parameters
    ----------
    store
        Labelled cells, as `prepare` wrote them.
    out
        Folder for answers, tables and pictures.
    split
        ``donor`` holds each donor out in turn; ``donor:K`` deals donors over K folds; ``folds:K`` deals cells,
        stratified by the finest level; ``donor=NAME`` and ``source=NAME`` test on one donor or input file.
    entrants
        Who takes part: pretrained models, other tools, embeddings made elsewhere.
    levels
        Label levels, coarse to fine. Default: all of the store's.
    labelled
        Numbers of labelled training cells a label, for learning curves; without them all are used.
    min_cells
        Labels with fewer cells are left out.
    seeds
        Number of seeds, for competitors that draw anything.
    progress
        Print a line after each answer.

    Raises
    ------
    InputError
        When the store has no labels, the split does not fit, or a competitor cannot run.
    """
    opened, folder = store if isinstance(store, Store) else Store.open(store), Path(out)
    who = entrants or Entrants()
    _check(who.methods, seeds, labelled)
    tasks = store_tasks(opened, split=split, levels=levels, min_cells=min_cells)
    chosen, arrays = _enter(who, opened, folder, progress=progress)
    tasks = [replace(task, embeddings=arrays) for task in tasks]
    if labelled:
        tasks = list(with_few_labels(tasks, labelled))
    bench = run_benchmark(tasks, chosen, range(seeds), print if progress else None, folder / "answers")
    return _result(bench, folder, BASELINE if BASELINE in chosen else next(iter(chosen)), labelled)


def _enter(
    who: Entrants, store: Store, folder: Path, *, progress: bool
) -> tuple[dict[str, Competitor], dict[str, npt.NDArray[np.float32]]]:
    """Return the competitors, and the embeddings of all cells that some of them read."""
    chosen = choose_tools(who.competitors)
    arrays = dict(read_embedding(text, store) for text in who.embedding)
    for name, array in arrays.items():
        chosen |= embedding_competitors(name, identity(array))
    models = {_run_name(run, who.run): CellModel.load(run) for run in who.run}
    if who.untrained is not None:
        models["untrained"] = untrained_model(who.untrained, store)
    for name, model in models.items():
        keep = folder / "embeddings" / f"{store.name}-{name}.npy"
        arrays[name] = embed_store(model, store, keep, progress=progress)
        made_of = model_identity(model)
        chosen |= _own(name, who.methods, made_of)
        if "finetune" in who.methods:
            chosen[f"{name}, finetune"] = finetune_competitor(FixedModel(model, made_of), store)
    if "counts" in who.methods:
        chosen["no model, probe"] = method_competitor(None, ProbeMethod())
    if who.pretrain is not None:
        chosen |= _fold_pretrained(FoldModels(store, who.pretrain, folder / "runs"), who.methods)
    return chosen, arrays


def _check(methods: Sequence[str], seeds: int, labelled: Sequence[int]) -> None:
    unknown = [name for name in methods if name not in METHODS]
    if unknown:
        raise InputError(f"methods: no {listing(map(repr, unknown))}; there are {listing(METHODS)}.")
    if seeds < 1:
        raise InputError(f"seeds: expected at least 1, got {seeds}.")
    if any(n < 1 for n in labelled):
        raise InputError(f"labelled: expected numbers of cells from 1 on, got {listing(map(str, labelled))}.")


def _run_name(run: Path, runs: Sequence[Path]) -> str:
    """Return a short name of a run that no other one has: its folder's, with the parent's where that is not enough."""
    same = [other for other in runs if other.resolve().name == run.resolve().name]
    return run.resolve().name if len(same) == 1 else f"{run.resolve().parent.name}-{run.resolve().name}"


def _own(name: str, methods: Sequence[str], made_of: str) -> dict[str, Competitor]:
    found = {f"{name}, probe": method_competitor(name, ProbeMethod(), made_of)} | embedding_competitors(name, made_of)
    return {key: competitor for key, competitor in found.items() if key.rpartition(", ")[2] in methods}


def _fold_pretrained(models: FoldModels, methods: Sequence[str]) -> dict[str, Competitor]:
    """Return lexicell's methods on models pretrained on each fold's training cells."""
    name = "pretrained on the fold"

    def with_embedding(competitor: Competitor) -> Competitor:
        def answer(problem: Problem, seed: int) -> Answer:
            cells = models.embedding(problem, seed)
            own = {name: cells[problem.train]}, {name: cells[problem.test]}
            return competitor.answer(replace(problem, train_embeddings=own[0], test_embeddings=own[1]), seed)

        return Competitor(answer, made_of=competitor.made_of)

    found = {key: with_embedding(own) for key, own in _own(name, methods, models.made_of).items()}
    if "finetune" in methods:
        found[f"{name}, finetune"] = finetune_competitor(models, models.store)
    return found


def _result(bench: Benchmark, folder: Path, baseline: str, labelled: Sequence[int]) -> BenchmarkResult:
    scores = bench.scores({"accuracy": accuracy, "macro_f1": macro_f1})
    keys = ["task", "level", "competitor", "seed"]
    errors = [(*key, _calibration_error(part)) for key, part in bench.predictions.groupby(keys, sort=False)]
    scores = scores.merge(pd.DataFrame(errors, columns=[*keys, "calibration_error"]), on=keys)
    intervals = paired_intervals(bench.predictions, baseline, macro_f1)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, table in (("scores", scores), ("intervals", intervals)):
        path = folder / f"{name}.csv"
        table.to_csv(path, index=False)
        written.append(path)
    picture = learning_curves(scores, labelled) if labelled else competitor_intervals(scores, intervals, baseline)
    (folder / "macro_f1.svg").write_text(to_svg(picture), encoding="utf-8")
    picture.savefig(folder / "macro_f1.png", dpi=180)
    written += [folder / "macro_f1.svg", folder / "macro_f1.png"]
    return BenchmarkResult(scores, intervals, baseline, tuple(written))


def _calibration_error(part: pd.DataFrame) -> float:
    known = part["confidence"].notna() & (part["truth"].fillna("") != "")
    right = (part["predicted"] == part["truth"])[known].to_numpy(dtype=bool)
    return expected_calibration_error(part.loc[known, "confidence"].to_numpy(dtype=float), right)
