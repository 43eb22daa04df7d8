"""Annotation side by side: lexicell's methods, other tools and any embedding, on the same cells and splits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lexicell.annotation.methods import ProbeMethod
from lexicell.data.store import Store
from lexicell.errors import InputError, listing
from lexicell.evaluation.identity import identity
from lexicell.evaluation.runner import Answer, Benchmark, Competitor, Problem, run_benchmark
from lexicell.inference.cell_model import CellModel
from lexicell.workflows.annotate import annotate_recipe
from lexicell.workflows.benchmark_competitors import (
    TOOLS,
    choose_tools,
    embedding_competitors,
    method_competitor,
    with_embedding_time,
)
from lexicell.workflows.benchmark_embeddings import (
    EmbeddedSides,
    embed_store,
    model_identity,
    read_embedding,
)
from lexicell.workflows.benchmark_options import Entrants, Part
from lexicell.workflows.benchmark_result import BenchmarkResult, result_of
from lexicell.workflows.benchmark_tasks import store_tasks, with_few_labels
from lexicell.workflows.fold_models import FixedModel, FoldModels, finetune_competitor, untrained_model
from lexicell.workflows.seen_labels import check_unseen

BASELINE, BEST = "logistic_regression", "best"
METHODS = ("knn", "linear", "probe", "counts", "finetune")


def benchmark_annotate(
    store: str | Path | Store,
    out: str | Path,
    *,
    split: str = "donor",
    entrants: Entrants | None = None,
    levels: Sequence[str] | None = None,
    only: Part | None = None,
    labelled: Sequence[int] = (),
    min_cells: int = 1,
    seeds: int = 3,
    baseline: str | None = None,
    overrides: Mapping[str, object] | None = None,
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
    only
        Which part of the tasks is asked for. Default: all.
    labelled
        Numbers of labelled training cells a label, for learning curves; each seed draws its own. Without them all are
        used.
    min_cells
        Labels with fewer cells are left out.
    seeds
        Number of seeds, for competitors that draw anything; for learning curves also the number of draws.
    baseline
        Whom the others are compared with, by paired intervals: a competitor, or ``best``: of each task and level the
        best one of the other tools and embeddings. Default: logistic regression, where it takes part.
    overrides
        How the method ``finetune`` trains: dotted field of `AnnotateRecipe` to value, as for `annotate`.
    progress
        Print a line after each answer.

    Raises
    ------
    InputError
        When the store has no labels, the split does not fit, a competitor cannot run, or a run has learned labels that
        it would be asked for.
    """
    opened, folder = store if isinstance(store, Store) else Store.open(store), Path(out)
    who, part = entrants or Entrants(), only or Part()
    _check(who.methods, seeds, labelled, part.folds)
    tasks = store_tasks(opened, split=split, levels=levels, min_cells=min_cells)
    tasks = [replace(task, folds=task.folds[: part.folds]) for task in (tasks[-1:] if part.finest else tasks)]
    for run in who.run:
        check_unseen(run, opened, tasks)
    if overrides:
        annotate_recipe(overrides, "finetune" if "finetune" in who.methods else ", ".join(who.methods))
    chosen, arrays = _enter(who, opened, folder, overrides, progress=progress)
    others = [name for name in chosen if name in TOOLS or name.rpartition(", ")[0] in arrays]
    baselines = _baselines(baseline, chosen, others)
    tasks = [replace(task, embeddings=arrays) for task in tasks]
    report, answers = print if progress else None, folder / "answers"
    if labelled:  # each seed draws other cells that bear a label
        curves = {seed: list(with_few_labels(tasks, labelled, seed)) for seed in range(seeds)}
        bench = Benchmark.join([run_benchmark(few, chosen, [seed], report, answers) for seed, few in curves.items()])
    else:
        bench = run_benchmark(tasks, chosen, range(seeds), report, answers)
    return result_of(bench, folder, baselines, labelled)


def _enter(
    who: Entrants, store: Store, folder: Path, overrides: Mapping[str, object] | None, *, progress: bool
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
        keep = folder / "embeddings" / f"{store.name}-{name}.npz"
        embed_store(model, store, keep, progress=progress)
        fixed = FixedModel(model, model_identity(model), store, keep)
        for key, own in _own(name, who.methods, fixed.made_of, model.cell_parts).items():
            chosen[key] = _on_embedding(name, own, fixed.embedding)
        if "finetune" in who.methods:
            chosen[f"{name}, finetune"] = finetune_competitor(fixed, store, overrides)
    if "counts" in who.methods:
        chosen["no model, probe"] = method_competitor(None, ProbeMethod())
    if who.pretrain is not None:
        models_of_folds = FoldModels(store, who.pretrain, folder / "runs")
        chosen |= _fold_pretrained(models_of_folds, who.methods, overrides)
    return chosen, arrays


def _check(methods: Sequence[str], seeds: int, labelled: Sequence[int], folds: int | None) -> None:
    unknown = [name for name in methods if name not in METHODS]
    if unknown:
        raise InputError(f"methods: no {listing(map(repr, unknown))}; there are {listing(METHODS)}.")
    if seeds < 1:
        raise InputError(f"seeds: expected at least 1, got {seeds}.")
    if folds is not None and folds < 1:
        raise InputError(f"folds: expected at least 1, got {folds}.")
    if any(n < 1 for n in labelled):
        raise InputError(f"labelled: expected numbers of cells from 1 on, got {listing(map(str, labelled))}.")


def _baselines(asked: str | None, chosen: Mapping[str, Competitor], others: Sequence[str]) -> tuple[str, ...]:
    """Return whom the others are compared with: one competitor, or several of which the best one counts."""
    if asked is None:
        return (BASELINE if BASELINE in chosen else next(iter(chosen)),)
    if asked == BEST and others:
        return tuple(others)
    if asked not in chosen:
        raise InputError(f"baseline: no {asked!r} among the competitors; there are {listing(map(repr, chosen), 20)}.")
    return (asked,)


def _run_name(run: Path, runs: Sequence[Path]) -> str:
    """Return a short name of a run that no other one has: its folder's, with the parent's where that is not enough."""
    same = [other for other in runs if other.resolve().name == run.resolve().name]
    return run.resolve().name if len(same) == 1 else f"{run.resolve().parent.name}-{run.resolve().name}"


def _own(name: str, methods: Sequence[str], made_of: str, parts: tuple[int, ...]) -> dict[str, Competitor]:
    found = {f"{name}, probe": method_competitor(name, ProbeMethod(), made_of)}
    found |= embedding_competitors(name, made_of, parts)
    return {key: competitor for key, competitor in found.items() if key.rpartition(", ")[2] in methods}


def _fold_pretrained(
    models: FoldModels, methods: Sequence[str], overrides: Mapping[str, object] | None
) -> dict[str, Competitor]:
    """Return lexicell's methods on models pretrained on each fold's training cells."""
    name = "pretrained on the fold"
    found = {}
    for key, own in _own(
        name, methods, models.made_of, models.cell_parts
    ).items():  # even what draws nothing differs with the model
        found[key] = _on_embedding(name, replace(own, seeded=True), models.embedding)
    if "finetune" in methods:
        found[f"{name}, finetune"] = finetune_competitor(models, models.store, overrides)
    return found


def _on_embedding(name: str, competitor: Competitor, embed: Callable[[Problem, int], EmbeddedSides]) -> Competitor:
    """Return a competitor that sees an embedding, made when it is asked for; its time counts, that of training not."""

    def answer(problem: Problem, seed: int) -> Answer:
        cells = embed(problem, seed)
        own = replace(problem, train_embeddings={name: cells.train}, test_embeddings={name: cells.test})
        found = competitor.answer(own, seed)
        return with_embedding_time(found, cells)

    return replace(competitor, answer=answer)
