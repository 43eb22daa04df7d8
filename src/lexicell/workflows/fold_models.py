"""Models for the folds of a benchmark: one that is given, an untrained one, or one pretrained on each fold."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from anndata import AnnData

from lexicell.data.store import Store
from lexicell.errors import InputError, listing
from lexicell.evaluation.runner import Answer, Competitor, Problem
from lexicell.inference.cell_model import CellModel
from lexicell.model.checkpoint import WEIGHTS
from lexicell.training.recipe import load_recipe
from lexicell.training.run_folder import RUN, read_json
from lexicell.training.start import FromScratch, baseline_of
from lexicell.workflows.annotate import annotate
from lexicell.workflows.benchmark_competitors import embed_store
from lexicell.workflows.benchmark_tasks import shared_genes
from lexicell.workflows.prepare import prepare
from lexicell.workflows.pretrain import pretrain

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]


class ModelOfFold(Protocol):
    """Gives the model that a fold is labelled with."""

    def model(self, fold: str, train: Int64, seed: int) -> CellModel:
        """Return the model of a fold, whose training cells are given, and of a seed."""
        ...


@dataclass(frozen=True, eq=False)
class FixedModel:
    """The same model for every fold and seed."""

    given: CellModel

    def model(self, fold: str, train: Int64, seed: int) -> CellModel:
        """Return it."""
        return self.given


@dataclass(frozen=True, eq=False)
class FoldModels:
    """Models pretrained on each fold's training cells, without their labels; made when asked for, and kept.

    Attributes
    ----------
    store
        All cells.
    recipe
        Recipe of the pretraining.
    folder
        Where stores and runs are kept.
    """

    store: Store
    recipe: str
    folder: Path
    _models: dict[tuple[str, int], CellModel] = field(default_factory=dict)

    def model(self, fold: str, train: Int64, seed: int) -> CellModel:
        """Return the fold's model; a run that was interrupted is gone on with."""
        if (fold, seed) not in self._models:
            name = f"{self.store.name}-{fold.replace(' ', '_')}"
            run, cells = self.folder / f"{name}-{seed}", self.folder / f"{name}-store"
            if not (cells / "meta.json").is_file():
                adata = subset(self.store, train)
                prepare({"datasets": [{"adata": adata, "species": species_of(self.store)} | _fields(adata)]}, cells)
            if not finished(run):
                overrides = {"objectives.labels": 0.0, "seed": seed}
                begun = pretrain(self.recipe, cells, run, resume=run.exists(), overrides=overrides, progress=False)
                begun.unless_stopped()
            self._models[fold, seed] = CellModel.load(run)
        return self._models[fold, seed]

    def embedding(self, fold: str, train: Int64, seed: int) -> Float32:
        """Return the embedding of all cells of the store by the fold's model."""
        keep = self.folder / f"{self.store.name}-{fold.replace(' ', '_')}-{seed}.npy"
        return embed_store(self.model(fold, train, seed), self.store, keep)


def finished(run: Path) -> bool:
    """Return whether a run folder holds a model that was trained to the end."""
    if not (run / WEIGHTS).is_file():
        return False
    return int(read_json(run / RUN)["steps"]) >= load_recipe(run / "recipe.yaml").trainer.max_steps


def untrained_model(recipe: str, store: Store) -> CellModel:
    """Return a model as training would begin with it: drawn weights, gene rows from the store's unlabelled cells."""
    loaded, start = load_recipe(recipe, {"objectives.labels": 0.0}), FromScratch()
    data = start.open(loaded, [store])
    return CellModel(*start.build(loaded, data, baseline_of(loaded, data), fresh=True))


def finetune_competitor(models: ModelOfFold, store: Store) -> Competitor:
    """Return lexicell's fine-tuning, which trains a model on with the labels of the fold's training cells."""

    def answer(problem: Problem, seed: int) -> Answer:
        reference, query = subset(store, problem.train), subset(store, problem.test)
        reference.obs = reference.obs.drop(columns=list(store.label_levels))
        for level in problem.train_paths:
            reference.obs[level] = problem.train_paths[level].replace("", None).to_numpy()
        query.obs = query.obs.drop(columns=list(store.label_levels))
        result = annotate(
            models.model(problem.fold, problem.train, seed),
            query,
            reference,
            [str(level) for level in problem.train_paths],
            method="finetune",
            species=species_of(store),
            reference_species=species_of(store),
            seed=seed,
            progress=False,
        )
        labels = result.annotation.labels(problem.level).astype(object).to_numpy()
        return Answer(labels, result.annotation.confidence(problem.level).to_numpy())

    return Competitor(answer)


def species_of(store: Store) -> str:
    """Return the species of a store that holds but one.

    Raises
    ------
    InputError
        When it holds several.
    """
    species = sorted({source.species for source in store.sources})
    if len(species) > 1:
        raise InputError(f"{store.path}: holds cells of {listing(species)}; a benchmark is of one species at a time.")
    return species[0]


def subset(store: Store, cells: Int64) -> AnnData:
    """Return some cells of a store in memory, over the genes that all of its files measured."""
    adata = store.to_anndata(cells)
    shared = shared_genes(store)
    return adata if len(shared) == store.n_genes else adata[:, shared].copy()


def _fields(adata: AnnData) -> dict[str, object]:
    """Return the corpus fields of a store's obs columns that are known."""
    known = (name for name in ("donor", "tissue", "assay") if name in adata.obs and adata.obs[name].notna().any())
    return {name: {"obs": name} for name in known}
