"""How groups of cells differ in what the model makes of their genes: tables and picture of contextual embeddings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from lexicell.data.cells import CellCollection
from lexicell.gene_space.group_states import LEAST_STATES, from_the_others, group_distances, spread, squared_distances
from lexicell.genes.lexicon import Lexicon
from lexicell.inference.contextual import RunningMoments
from lexicell.reporting.gene_contexts import contexts_figure
from lexicell.reporting.gene_figures import save_figure
from lexicell.training.gene_rows import log_cpm
from lexicell.workflows.genes_cells import Groups
from lexicell.workflows.interpret_cells import gene_names

Int64 = npt.NDArray[np.int64]

MOST_GROUPS = 60  # compared: those with most cells
MOST_GENES = 1000  # compared: those that most cells express, all groups alike
_CELLS = 50  # of a group, looked at for that


class GroupStates:
    """Keeps, of some genes in some groups, what their comparison needs: memory is bounded by `MOST_GROUPS` and genes.

    Parameters
    ----------
    collection
        The cells.
    groups
        The groups; with more than `MOST_GROUPS`, only those with most cells are kept.
    """

    def __init__(self, collection: CellCollection, groups: Groups) -> None:
        size = np.array([len(own) for own in groups.cells])
        kept = np.sort(np.argsort(-size, kind="stable")[:MOST_GROUPS])
        self._wanted = {groups.names[k] for k in kept}
        share = np.zeros(len(collection.lexicon))
        everything = np.arange(len(collection.lexicon))
        for k in kept:
            own = groups.cells[k][:: max(1, int(size[k]) // _CELLS)]
            share += np.diff(log_cpm(collection, own, everything).indptr) / len(own)
        self.genes: Int64 = np.sort(np.argsort(-share, kind="stable")[: min(MOST_GENES, int((share > 0).sum()))])
        self.names: list[str] = []
        self._mean: list[npt.NDArray[np.float32]] = []
        self._variance: list[npt.NDArray[np.float64]] = []
        self._n: list[Int64] = []

    def add(self, name: str, moments: RunningMoments) -> None:
        """Keep a group's states, if it is one of those compared."""
        if name in self._wanted:
            self.names.append(name)
            self._mean.append(moments.mean[self.genes].astype(np.float32))
            self._variance.append(np.nan_to_num(moments.variance[self.genes]).sum(axis=1))
            self._n.append(moments.n[self.genes])

    def tables(self, lexicon: Lexicon) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the groups' distances, and the genes' places.

        Returns
        -------
        groups : DataFrame
            One row a pair of groups: a, b, distance (over genes, in standard deviations from cell to cell),
            genes (that both saw `LEAST_STATES` times).
        genes : DataFrame
            One row a gene and group that saw it: species, gene_id, symbol, group, n, distance (from where the gene is
            in the other groups), spread (of the gene, over all pairs of groups); foremost genes first.
        """
        n = np.stack(self._n)
        squared = squared_distances(np.stack(self._mean), np.stack(self._variance), n)
        distance, shared = group_distances(squared)
        a, b = np.triu_indices(len(self.names), k=1)
        names = np.array(self.names, dtype=object)
        groups = pd.DataFrame({"a": names[a], "b": names[b], "distance": distance[a, b], "genes": shared[a, b]})
        places, spreads = from_the_others(squared), spread(squared)
        gene, group = np.nonzero((n >= LEAST_STATES).T & ~np.isnan(places.T))
        about = lexicon.table.iloc[self.genes[gene]].reset_index(drop=True)
        about["symbol"] = np.array(gene_names(lexicon, self.genes), dtype=object)[gene]
        genes = about.assign(group=names[group], n=n[group, gene], distance=places[group, gene], spread=spreads[gene])
        order = np.lexsort((group, gene, -spreads[gene]))
        return groups, genes.iloc[order].reset_index(drop=True)


def write_contexts(groups: pd.DataFrame, genes: pd.DataFrame, folder: Path) -> list[Path]:
    """Write the tables and their picture; nothing where no two groups share a gene."""
    if not groups["distance"].notna().any() or not len(genes):
        return []
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / "genes_contextual.csv", folder / "genes_contextual_genes.parquet"]
    groups.to_csv(written[0], index=False)
    genes.to_parquet(written[1], index=False)
    return [*written, *save_figure(contexts_figure(groups, genes), folder / "genes_contextual")]
