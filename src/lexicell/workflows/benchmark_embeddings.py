"""Embeddings that the annotation benchmark reads: by a model, kept in files, or made elsewhere."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from anndata import read_h5ad
from scipy import sparse

from lexicell.annotation.depth import DepthMatch, depths_of
from lexicell.data.query import Query, store_queries
from lexicell.data.store import Store
from lexicell.errors import InputError, listing
from lexicell.evaluation.identity import identity
from lexicell.evaluation.runner import Problem
from lexicell.inference.cell_model import CellModel
from lexicell.randomness import generator
from lexicell.workflows.benchmark_tasks import shared_genes

Float32 = npt.NDArray[np.float32]


def model_identity(model: CellModel) -> str:
    """Return an identity of a model's weights and of what they mean, however its folder is called."""
    weights = sorted(model.network.state_dict().items())
    arrays = (value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy() for _, value in weights)
    return identity(json.dumps(model.spec.to_dict()), *(name for name, _ in weights), *arrays)


@dataclass(frozen=True, eq=False)
class Embedded:
    """Cells as a model sees them, and what that took."""

    values: Float32
    """(n_cells, width)."""
    seconds_a_cell: float
    """Time to embed one."""


@dataclass(frozen=True, eq=False)
class EmbeddedSides:
    """A fold's training and test cells as a model sees them, and what that took."""

    train: Float32
    """(n_train, width)."""
    test: Float32
    """(n_test, width)."""
    seconds_a_cell: float
    """Time to embed one."""


def as_deep(problem: Problem) -> Problem:
    """Return a problem whose training cells are thinned to the depth of the test cells, as `annotate` does it.

    It is the same problem where that is not needed. Where they are thinned several times over, all training cells
    follow each other so often.
    """
    match = DepthMatch.fit(depths_of(problem.train_counts), depths_of(problem.test_counts))
    if match is None:
        return problem
    n = len(problem.train)
    copies, rng = match.copies(n), generator(0, "thinned training cells", problem.task, problem.fold)
    rows, groups = np.tile(np.arange(n), copies), problem.train_groups
    return replace(
        problem,
        train=problem.train[rows],
        train_counts=sparse.vstack([match.thin(problem.train_counts, rng) for _ in range(copies)], format="csr"),
        train_labels=problem.train_labels[rows],
        train_groups=None if groups is None else groups[rows],
        train_paths=problem.train_paths.iloc[rows].reset_index(drop=True),
    )


def embed_sides(model: CellModel, store: Store, keep: Path, problem: Problem) -> EmbeddedSides:
    """Return a model's embedding of a fold's cells: test cells as they are, training cells as deep as these.

    Parameters are those of `embed_timed`; the cells of `problem` are the store's.
    """
    whole, shown = embed_timed(model, store, keep), as_deep(problem)
    train = whole.values[problem.train]
    if shown is not problem:
        index = model.lexicon.map_from(store.lexicon)[shared_genes(store)]
        train = model.embed(Query.of_counts(shown.train_counts, index, store.sources[0].species))
    return EmbeddedSides(train, whole.values[problem.test], whole.seconds_a_cell)


def embed_store(model: CellModel, store: Store, keep: Path, *, progress: bool = False) -> Float32:
    """Return a model's embedding of all cells of a store; parameters as of `embed_timed`."""
    return embed_timed(model, store, keep, progress=progress).values


def embed_timed(model: CellModel, store: Store, keep: Path, *, progress: bool = False) -> Embedded:
    """Return a model's embedding of all cells of a store, from a file where it was made before.

    Cells of several files are read over the genes that all of these measured, as `annotate` reads reference and query.

    Parameters
    ----------
    model
        A model.
    store
        Cells.
    keep
        File to read it from, or to write it to (.npz); to its name is added what tells this model and these cells from
        others.
    progress
        Show a progress bar.
    """
    shared = shared_genes(store)
    some = (shared,) if len(shared) < store.n_genes else ()
    keep = keep.with_name(f"{keep.stem}-{identity(model_identity(model), store.fingerprint, *some)}.npz")
    if not keep.is_file():
        began = time.perf_counter()
        parts = store_queries(store, np.arange(store.n_cells), model.lexicon)
        if some:
            known = model.lexicon.map_from(store.lexicon)[shared]
            over = np.unique(known[known >= 0])
            parts = (part.over(over) for part in parts)
        values = np.concatenate([model.embed(part, progress=progress) for part in parts])
        seconds = (time.perf_counter() - began) / store.n_cells
        keep.parent.mkdir(parents=True, exist_ok=True)
        part = keep.with_name(f".{keep.name}.part.npz")
        np.savez(part, values=values, seconds_a_cell=seconds)
        part.replace(keep)
    with np.load(keep) as kept:
        return Embedded(kept["values"], float(kept["seconds_a_cell"]))


def read_embedding(text: str, store: Store) -> tuple[str, Float32]:
    """Return name and values of an embedding made elsewhere: ``FILE.h5ad:KEY`` names a file and its obsm key.

    Raises
    ------
    InputError
        When there is no such file or key, or it lacks cells of the store.
    """
    file, _, key = text.rpartition(":")
    if not file or not Path(file).is_file():
        raise InputError(f"embedding {text!r}: expected FILE.h5ad:KEY, with an obsm key of an existing file.")
    adata = read_h5ad(file, backed="r")
    try:
        if key not in adata.obsm:
            raise InputError(f"{file}: has no obsm[{key!r}]; there are {listing(map(repr, adata.obsm)) or 'none'}.")
        names = store.cell_names()
        place = pd.Index(adata.obs_names.astype(str)).get_indexer(names)
        absent = int((place < 0).sum())
        if absent:
            example = names[place < 0][0]
            raise InputError(
                f"{file}: lacks {absent:,} of the {store.n_cells:,} cells of {store.path}, such as {example!r}; "
                "its obs names must be those of the store (`lexicell store export` writes them)."
            )
        values = np.asarray(adata.obsm[key], dtype=np.float32)[place]
    finally:
        adata.file.close()
    return key.removeprefix("X_"), values
