"""Picture of contextual gene embeddings: which groups of cells are alike, and which genes differ between them."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.cluster.hierarchy import dendrogram, linkage
from scipy.spatial.distance import squareform

from lexicell.reporting.figures import MUTED, RULE, STYLE, label_cells

FOREMOST = 25  # genes that are drawn


def contexts_figure(groups: pd.DataFrame, genes: pd.DataFrame) -> Figure:
    """Draw the distances between groups under their dendrogram, and beside them the genes that differ most.

    Parameters
    ----------
    groups
        Columns a, b and distance, each pair of groups once; a missing distance is grey.
    genes
        Columns species, gene_id, symbol, group, distance and spread, one row a gene and group.
    """
    names = list(dict.fromkeys([*groups["a"], *groups["b"]]))
    place = {name: spot for spot, name in enumerate(names)}
    square = np.full((len(names), len(names)), np.nan)
    a, b = groups["a"].map(place).to_numpy(), groups["b"].map(place).to_numpy()
    square[a, b] = square[b, a] = groups["distance"].to_numpy(dtype=float)
    part = genes.assign(gene=genes["species"].astype(str) + ":" + genes["gene_id"].astype(str))
    foremost = part.sort_values("spread", ascending=False, kind="stable")["gene"].drop_duplicates().head(FOREMOST)
    part = part[part["gene"].isin(foremost)]
    wide = part.pivot_table(index="gene", columns="group", values="distance", sort=False).reindex(foremost)
    symbol = part.drop_duplicates("gene").set_index("gene")["symbol"]
    n = len(names)
    with mpl.rc_context(STYLE):
        each = min(7.0, 0.24 * n + 1.6)
        size = (2 * each + 2.2, max(each, 0.19 * len(wide) + 0.4) + 1.4)
        figure = Figure(figsize=size, layout="constrained")
        layout = {"height_ratios": [1, 6]}
        (above, empty), (left, right) = figure.subplots(2, 2, gridspec_kw=layout)
        empty.set_visible(False)
        order = _tree(above, square)
        labels = [names[spot] for spot in order]
        _heat(left, square[np.ix_(order, order)], labels, labels, "Groups: distance over their genes")
        _heat(
            right,
            wide.reindex(columns=labels).to_numpy(dtype=float),
            [str(symbol[gene]) for gene in wide.index],
            labels,
            "Genes that differ most: distance from the other groups",
        )
    return figure


def _tree(axis: Axes, square: npt.NDArray[np.float64]) -> list[int]:
    """Draw the dendrogram (average linkage) and return the groups' order; unknown distances count as the longest."""
    axis.axis("off")
    if len(square) < 3:
        return list(range(len(square)))
    far = np.where(np.isnan(square), np.nanmax(square), square)
    np.fill_diagonal(far, 0)
    joined = linkage(squareform(far, checks=False), "average")
    drawn = dendrogram(joined, no_plot=True)
    for x, y in zip(drawn["icoord"], drawn["dcoord"], strict=True):
        axis.plot((np.array(x) - 5) / 10, y, color=MUTED, linewidth=1)
    axis.set_xlim(-0.5, len(square) - 0.5)
    return [int(leaf) for leaf in drawn["leaves"]]


def _heat(axis: Axes, values: npt.NDArray[np.float64], rows: list[str], columns: list[str], title: str) -> None:
    colours = mpl.colormaps["cividis"].with_extremes(bad=RULE)
    top = float(np.nanmax(values, initial=0.0))
    image = axis.imshow(values, cmap=colours, vmin=0, vmax=max(top, 1e-9), interpolation="nearest", aspect="auto")
    label_cells(axis, rows, columns)
    axis.set_title(title, fontsize=9)
    bar = axis.figure.colorbar(image, ax=axis, shrink=0.7, aspect=30)
    bar.set_label("in standard deviations from cell to cell")
