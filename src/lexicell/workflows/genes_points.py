"""Gene embeddings that come from some cells: one table a group, part or species."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from lexicell.data.cells import CellCollection
from lexicell.gene_space.gene_views import pca_loadings, standardised
from lexicell.inference.cell_model import CellModel
from lexicell.inference.contextual import token_moments
from lexicell.inference.gene_response import count_response
from lexicell.randomness import generator
from lexicell.training.gene_rows import log_cpm
from lexicell.workflows.genes_cells import queries

Points = npt.NDArray[np.floating[Any]]
Int64 = npt.NDArray[np.int64]
CellTable = Literal["contextual", "responses", "coexpression"]

COMPONENTS = 30  # of responses and of co-expression
RESPONSE_CELLS = 100


def points_of_cells(
    model: CellModel, collection: CellCollection, cells: Int64, genes: Int64, table: CellTable, seed: int
) -> tuple[Points, Int64]:
    """Return an embedding of genes from some cells (ascending), and in how many cells each was seen.

    ``contextual``: mean token states; ``responses``: principal components of what the decoder expects in the cells;
    ``coexpression``: PCA loadings of the cells' log-CPM, which needs no model.
    """
    if table == "contextual":
        moments = token_moments(model, queries(collection, cells))
        return moments.mean[genes], moments.n[genes]
    everything = np.arange(len(collection.lexicon))  # log_cpm expects every gene that the cells express
    counts = log_cpm(collection, cells, everything)[:, genes]
    n_seen = np.diff(counts.indptr).astype(np.int64)
    if table == "coexpression":
        scaled = standardised(counts)
    else:
        drawn = np.sort(generator(seed, "part cells").permutation(cells)[:RESPONSE_CELLS])
        cls = np.concatenate([model.run(query).embedding for query in queries(collection, drawn)])
        scaled = count_response(model, cls, genes)
        scaled -= scaled.mean(axis=1, keepdims=True)
    loadings = pca_loadings(scaled, COMPONENTS, seed)
    width = np.zeros((len(genes), COMPONENTS - loadings.shape[1]))  # few cells have few components
    return np.concatenate([loadings, width], axis=1), n_seen
