"""Models for the folds of a benchmark: one that is given, an untrained one, or one pretrained on each fold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from anndata import AnnData

from lexicell.data.store import Store
from lexicell.errors import InputError, listing
from lexicell.evaluation.identity import identity
from lexicell.evaluation.runner import Answer, Competitor, Problem
from lexicell.inference.cell_model import CellModel
from lexicell.model.checkpoint import WEIGHTS
from lexicell.training.recipe import load_recipe
from lexicell.training.run_folder import RUN, read_json
from lexicell.training.start import FromScratch, baseline_of
from lexicell.workflows.annotate import annotate, annotate_recipe
from lexicell.workflows.benchmark_embeddings import EmbeddedSides, embed_sides
from lexicell.workflows.benchmark_tasks import shared_genes
from lexicell.workflows.prepare import prepare
from lexicell.workflows.pretrain import pretrain

Int64 = npt.NDArray[np.int64]

_LABEL_FREE: dict[str, object] = {"objectives.labels": 0.0}


class ModelOfFold(Protocol):
    """Gives the model that a fold is labelled with."""

    @property
    def made_of(self) -> str:
        """What tells these models from others; see `Competitor`."""
        ...

    def model(self, problem: Problem, seed: int) -> CellModel:
        """Return the model of a fold and of a seed."""
        ...


@dataclass(frozen=True, eq=False)
class FixedModel:
    """The same model for every fold and seed.

    Attributes
    ----------
    given
        The model.
    made_of
        What tells it from others.
    store
        All cells.
    keep
        File of their embedding; see `embed_timed`.
    """

    given: CellModel
    made_of: str
    store: Store
    keep: Path

    def model(self, problem: Problem, seed: int) -> CellModel:
        """Return it."""
        return self.given

    def embedding(self, problem: Problem, seed: int) -> EmbeddedSides:
        """Return the embedding of a fold's cells."""
        return embed_sides(self.given, self.store, self.keep, problem)


@dataclass(frozen=True, eq=False)
class FoldModels:
    """Models pretrained on a fold's pool: all cells on its training side, without their labels; made once, and kept.

    Pretraining is always without labels, the store that it reads has none: so for a learning curve one model serves
    every number of labelled cells, and has seen the labels of none. Stores and runs are named by what they are made of
    (the cells, and the recipe): another split in the same folder gets its own.

    Attributes
    ----------
    store
        All cells.
    recipe
        Recipe of the pretraining.
    folder
        Where stores, runs and embeddings are kept.
    """

    store: Store
    recipe: str
    folder: Path
    _models: dict[Path, CellModel] = field(default_factory=dict)

    @property
    def made_of(self) -> str:
        """What tells these models from others of the same cells: the recipe, labels left out."""
        return identity(repr(load_recipe(self.recipe, _LABEL_FREE)))

    @property
    def cell_parts(self) -> tuple[int, int]:
        """Widths of the two parts of their embeddings; see `CellModel.cell_parts`."""
        return load_recipe(self.recipe, _LABEL_FREE).model.cell_parts

    def model(self, problem: Problem, seed: int) -> CellModel:
        """Return the fold's model; a run that was interrupted is gone on with."""
        run = self._run(problem, seed)
        if run not in self._models:
            cells = self.folder / f"{self._cells(problem)}-store"
            if not (cells / "meta.json").is_file():
                adata = subset(self.store, problem.pool)
                dataset = {"adata": adata, "species": species_of(self.store), "gene_ids": "index"} | _fields(adata)
                prepare({"datasets": [dataset]}, cells)
            if not finished(run):
                overrides = _LABEL_FREE | {"seed": seed}
                begun = pretrain(self.recipe, cells, run, resume=run.exists(), overrides=overrides, progress=False)
                begun.unless_stopped()
            self._models[run] = CellModel.load(run)
        return self._models[run]

    def embedding(self, problem: Problem, seed: int) -> EmbeddedSides:
        """Return the embedding of the fold's cells by its model."""
        run = self._run(problem, seed)
        return embed_sides(self.model(problem, seed), self.store, run.with_name(f"{run.name}.npz"), problem)

    def _cells(self, problem: Problem) -> str:
        cells = identity(self.store.fingerprint, problem.pool)
        return f"{self.store.name}-{problem.fold.replace(' ', '_')}-{cells}"

    def _run(self, problem: Problem, seed: int) -> Path:
        return self.folder / f"{self._cells(problem)}-{self.made_of}-{seed}"


def finished(run: Path) -> bool:
    """Return whether a run folder holds a model that was trained to the end."""
    if not (run / WEIGHTS).is_file():
        return False
    return int(read_json(run / RUN)["steps"]) >= load_recipe(run / "recipe.yaml").trainer.max_steps


def untrained_model(recipe: str, store: Store) -> CellModel:
    """Return a model as training would begin with it: drawn weights, gene rows from the store's unlabelled cells."""
    loaded, start = load_recipe(recipe, _LABEL_FREE), FromScratch()
    data = start.open(loaded, [store])
    return CellModel(*start.build(loaded, data, baseline_of(loaded, data), fresh=True))


def finetune_competitor(models: ModelOfFold, store: Store, overrides: Mapping[str, object] | None = None) -> Competitor:
    """Return lexicell's fine-tuning, which trains a model on with the labels of the fold's training cells.

    Parameters
    ----------
    models
        Gives the model of a fold.
    store
        All cells.
    overrides
        Dotted fields of `AnnotateRecipe`, which say how.
    """

    def answer(problem: Problem, seed: int) -> Answer:
        reference, query = subset(store, problem.train), subset(store, problem.test)
        reference.obs = reference.obs.drop(columns=list(store.label_levels))
        for level in problem.train_paths:
            reference.obs[level] = problem.train_paths[level].replace("", None).to_numpy()
        query.obs = query.obs.drop(columns=list(store.label_levels))
        result = annotate(
            models.model(problem, seed),
            query,
            reference,
            [str(level) for level in problem.train_paths],
            method="finetune",
            species=species_of(store),
            reference_species=species_of(store),
            seed=seed,
            progress=False,
            overrides=overrides,
        )
        labels = result.annotation.labels(problem.level).astype(object).to_numpy()
        seconds = result.seconds["reference"], result.seconds["query"]
        return Answer(labels, result.annotation.confidence(problem.level).to_numpy(), seconds)

    how = annotate_recipe(overrides or {}, "finetune")
    return Competitor(answer, made_of=f"{models.made_of} {how}")


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
