"""CellBatch: the typed contract between the data side and the model side.

Shapes: ``v`` views, ``b`` cells, ``l`` tokens a view, ``q`` queries, ``c`` covariates, ``k`` label levels.
Counts are raw here; the model turns them into count classes.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True)
class CellBatch:
    """Cells as (gene, raw count) tokens, with held-out genes to ask for.

    Within a cell no gene stands twice: not in one view, nor in two, nor in a view and among the queries.
    There is no padding, so there is no mask.
    """

    genes: Tensor  # int64 (v, b, l): lexicon index of each token
    counts: Tensor  # int64 (v, b, l): raw count of each token, zeros included
    query_genes: Tensor  # int64 (b, q): genes that the model is asked for
    query_counts: Tensor  # int64 (b, q): their true raw counts
    depth: Tensor  # float32 (b,): total counts of the cell, over all its genes
    covariates: Tensor  # int64 (b, c): level of each covariate; 0 is unknown (or dropped)
    labels: Tensor  # int64 (b, k): node of the label tree per level; -1 where there is no label
    position: Tensor  # int64 (b,): place of the cell in the endless global order; -1 where it only fills up

    @property
    def n_cells(self) -> int:
        """Number of cells in the batch."""
        return self.depth.shape[0]

    @property
    def n_views(self) -> int:
        """Number of gene-disjoint views of each cell."""
        return self.genes.shape[0]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> CellBatch:
        """Return the batch on another device."""
        return CellBatch(**{f.name: getattr(self, f.name).to(device, non_blocking=non_blocking) for f in fields(self)})

    def pin_memory(self) -> CellBatch:
        """Return the batch in page-locked memory, for asynchronous copies to a GPU."""
        return CellBatch(**{f.name: getattr(self, f.name).pin_memory() for f in fields(self)})
