"""How much reference and query have in common: a 500-gene panel against a whole transcriptome.

Both are read over the genes that both measured, and over no other: embedding, depth and counts then mean the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from lexicell.annotation.folds import reference_folds
from lexicell.annotation.methods import ProbeMethod, SeenCells, cross_fit
from lexicell.annotation.probe import ProbeSettings
from lexicell.annotation.scores import class_f1, macro_f1
from lexicell.annotation.tree import call_labels
from lexicell.labels import LabelTree

FEWEST_GENES = 20


@dataclass(frozen=True)
class Overlap:
    """Genes of reference and query.

    Attributes
    ----------
    shared
        Genes that the model knows and both measured.
    reference, query
        Genes that each measured, those that the model lacks included.
    """

    shared: int
    reference: int
    query: int

    def figures(self) -> dict[str, Any]:
        """Return the figures for programs."""
        return {
            "shared_genes": self.shared,
            "reference_genes": self.reference,
            "query_genes": self.query,
        }

    def said(self) -> str:
        """Return it in words."""
        return (
            f"{self.shared:,} genes are shared: {self.shared / max(self.reference, 1):.0%} of the reference's "
            f"{self.reference:,} and {self.shared / max(self.query, 1):.0%} of the query's {self.query:,}"
        )


@dataclass(frozen=True, eq=False)
class PanelLoss:
    """What a linear tree on the shared genes does on held-out reference cells, beside one on all genes.

    Attributes
    ----------
    levels
        One row a level: level, macro_f1_all, macro_f1_shared.
    recall
        Mean recall over the coarsest labels, on the shared genes.
    better_than_guessing
        Whether that recall is above one over the number of labels, at 95% confidence.
    """

    levels: pd.DataFrame
    recall: float
    better_than_guessing: bool

    def said(self) -> str:
        """Return it in words."""
        levels = "; ".join(
            f"{row.level} {row.macro_f1_shared:.2f} instead of {row.macro_f1_all:.2f}"
            for row in self.levels.itertuples()
        )
        return f"With these genes alone, expect a lower macro-F1 (genes alone, held-out reference cells): {levels}"


def compare_panels(
    counts: Sequence[sparse.csr_matrix],
    codes: npt.NDArray[np.int64],
    donors: npt.NDArray[np.object_] | None,
    tree: LabelTree,
    columns: npt.NDArray[np.int64],
) -> PanelLoss:
    """Label held-out reference cells by all genes and by some of them.

    Parameters
    ----------
    counts
        Raw counts of the reference's cells, in parts.
    codes, donors
        Their labels (n_cells, n_levels) and donors.
    tree
        The label tree.
    columns
        Columns of the counts that are shared.
    """
    whole = sparse.vstack(counts, format="csr")
    folds, _ = reference_folds(donors, codes)
    method = ProbeMethod(ProbeSettings(shares=(1.0, 0.0, 0.0), embedding_share=0.0))
    called = []
    for part in (whole, sparse.csr_matrix(whole[:, columns])):
        cells = SeenCells(np.zeros((part.shape[0], 1), dtype=np.float32), part)
        held_out = cross_fit(method, cells, codes, tree, folds)
        called.append((held_out.rows, call_labels(tree, held_out.tables).codes))
    rows = [
        {
            "level": level,
            **{
                name: macro_f1(codes[cells, place], guess[:, place])
                for name, (cells, guess) in zip(("macro_f1_all", "macro_f1_shared"), called, strict=True)
            },
        }
        for place, level in enumerate(tree.levels)
    ]
    cells_judged, guess = called[1]
    recalls = class_f1(codes[cells_judged, 0], guess[:, 0])
    recall, n = recalls["recall"].to_numpy(), recalls["n_cells"].to_numpy()
    error = float(np.sqrt((recall * (1 - recall) / n).sum())) / len(recall)
    chance = 1 / len(recall)
    return PanelLoss(
        pd.DataFrame(rows), float(recall.mean()), len(recall) < 2 or recall.mean() - 1.645 * error > chance
    )
