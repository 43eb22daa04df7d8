"""Which genes made this label: integrated gradients from a cell without counts, or an average one, to the cell.

A score that is linear in the cell's embedding, such as a label's logit, is attributed to the counts of the genes shown.
A count enters twice, as the token's class and as the gene's weight in the bag; both are changed together. Integrated
gradients (Sundararajan, Taly & Yan 2017) add up to the score's difference between cell and baseline; how far they
miss it, for want of steps, is kept as the gap.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lexicell.data.query import Query
from lexicell.inference.cell_model import TOKENS_AT_ONCE, CellModel, DealtSamples

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Baseline:
    """What a cell is compared with, gene by gene.

    Attributes
    ----------
    counted
        (n_lexicon, width) embedding that stands for the gene's count.
    level
        (n_lexicon,) log(1 + counts per 10,000).
    """

    counted: Tensor
    level: Tensor


def silent_baseline(model: CellModel) -> Baseline:
    """Return the baseline of no counts at all: every gene shown is silent."""
    n_genes = len(model.lexicon)
    zero = model.network.counts.weight[0].detach()
    return Baseline(zero.expand(n_genes, -1), torch.zeros(n_genes, device=model.device))


def average_baseline(model: CellModel, parts: Iterable[Query]) -> Baseline:
    """Return the baseline of an average cell: each gene's count as it is on average over some cells.

    Genes that none of the cells measured are silent in it.
    """
    edges = model.network.count_classes.edges.cpu().numpy()
    n_genes, n_classes = len(model.lexicon), len(edges)
    seen, level = np.zeros((n_genes, n_classes)), np.zeros(n_genes)
    for query in parts:
        known = query.gene_index >= 0
        counts = query.counts[:, known].tocoo()
        gene = query.gene_index[known][counts.col]
        which = np.searchsorted(edges, counts.data, side="right") - 1
        own = np.bincount(gene * n_classes + which, minlength=n_genes * n_classes).reshape(n_genes, n_classes)
        own[query.gene_index[known], 0] += query.n_cells - own[query.gene_index[known]].sum(axis=1)
        seen += own
        depth = np.maximum(np.asarray(query.counts[:, known].sum(axis=1)).ravel(), 1)
        level += np.bincount(gene, np.log1p(counts.data * 1e4 / depth[counts.row]), minlength=n_genes)
    n_cells = seen.sum(axis=1)
    seen[n_cells == 0, 0] = 1
    share = torch.from_numpy((seen / seen.sum(axis=1, keepdims=True)).astype(np.float32)).to(model.device)
    mean = torch.from_numpy((level / np.maximum(n_cells, 1)).astype(np.float32)).to(model.device)
    return Baseline(share @ model.network.counts.weight.detach().float(), mean)


@dataclass(frozen=True, eq=False)
class Attributions:
    """Attributions of some cells' scores to genes.

    Attributes
    ----------
    mean
        (n_lexicon,) contribution of each gene to the score, averaged over all cells.
    shown
        (n_lexicon,) in how many cells the gene was shown with another count than the baseline's.
    score, baseline
        Mean score of the cells, and of their baselines.
    gap
        Mean distance of a cell's summed contributions from its score less its baseline's, as a share of the mean size
        of that difference.
    n_cells
        Number of cells.
    """

    mean: Float64
    shown: Int64
    score: float
    baseline: float
    gap: float
    n_cells: int


def attribute(
    model: CellModel, query: Query, direction: Float32, baseline: Baseline, *, steps: int = 8, path: bool = True
) -> Attributions:
    """Attribute ``direction @ embedding`` of cells to the counts of their genes.

    Parameters
    ----------
    model
        A trained model.
    query
        The cells.
    direction
        (cell width,) of the embedding.
    baseline
        Where the path begins.
    steps
        Points on the path (Gauss-Legendre, denser near the baseline).
    path
        False takes the gradient at the cell alone: gradient times input, which does not add up to the score.
    """
    nodes, quadrature = np.polynomial.legendre.leggauss(steps)
    # Along the square of an even step: near the average cell the bag of genes is all but empty, and its norm turns
    # fast.
    along = [((float(t) + 1) ** 2 / 4, float(w) * (float(t) + 1) / 2) for t, w in zip(nodes, quadrature, strict=True)]
    points = along if path else [(1.0, 1.0)]
    aim = torch.from_numpy(np.asarray(direction, np.float32)).to(model.device)
    n_samples = np.zeros(query.n_cells)
    for dealt in model.dealt_samples(query):
        np.add.at(n_samples, dealt.cell, 1)
    total, shown = np.zeros(len(model.lexicon)), np.zeros(len(model.lexicon), np.int64)
    ends, summed = np.zeros((2, query.n_cells)), np.zeros(query.n_cells)
    per_pass = max(1, TOKENS_AT_ONCE // (2 * model.spec.tokens))
    for dealt in model.dealt_samples(query, batch_size=per_pass):
        found, differs, before, after = _attribute(model, dealt, aim, baseline, points)
        share = (1 / n_samples[dealt.cell])[:, None]
        np.add.at(total, dealt.genes, found * share)
        np.add.at(shown, dealt.genes, differs)
        np.add.at(summed, dealt.cell, (found * share).sum(axis=1))
        for end, values in zip(ends, (before, after), strict=True):
            np.add.at(end, dealt.cell, values * share[:, 0])
    change = ends[1] - ends[0]
    gap = float(np.abs(summed - change).mean() / max(float(np.abs(change).mean()), 1e-12))
    mean = ends.mean(axis=1)
    return Attributions(total / query.n_cells, shown, float(mean[1]), float(mean[0]), gap, query.n_cells)


def _attribute(
    model: CellModel, dealt: DealtSamples, aim: Tensor, baseline: Baseline, points: list[tuple[float, float]]
) -> tuple[Float64, npt.NDArray[np.bool_], Float64, Float64]:
    """Return contributions (b, l), where counts differ from the baseline, and scores of baseline and sample (b,)."""
    network = model.network
    genes, counts, depth, told = model.tensors(dealt.genes, dealt.counts, dealt.depth)
    rows = network.genes(genes)
    counted, first_counted = network.counts(network.count_classes(counts)), baseline.counted[genes]
    weights = network.bag.weights(genes, counts, depth)
    first_weights = baseline.level[genes] - network.bag.usual[genes]

    def score(counted: Tensor, weights: Tensor) -> Tensor:
        scored: Tensor = network.read(rows, counted, weights, told).cell @ aim
        return scored

    total = torch.zeros(genes.shape, device=model.device)
    for point, quadrature in points:
        along = [
            (first + point * (last - first)).detach().requires_grad_()
            for first, last in ((first_counted, counted), (first_weights, weights))
        ]
        with torch.enable_grad():
            by_count, by_weight = torch.autograd.grad(score(*along).sum(), along)
        moved = (by_count * (counted - first_counted)).sum(dim=-1) + by_weight * (weights - first_weights)
        total += quadrature * moved.detach()
    with torch.no_grad():
        before, after = score(first_counted, first_weights), score(counted, weights)
    differs = (weights != first_weights) | (counted != first_counted).any(dim=-1)
    return (
        total.cpu().numpy().astype(np.float64),
        differs.cpu().numpy(),
        before.cpu().numpy().astype(np.float64),
        after.cpu().numpy().astype(np.float64),
    )


def head_direction(model: CellModel, level: str, label: str) -> Float32:
    """Return the direction of the embedding that the label head reads for a label, (cell width,).

    It is the label's logit less the mean logit of its siblings, added up along the path to the root: linear in the
    embedding, unlike the probability.

    Raises
    ------
    KeyError
        When the head does not know the level or the label, or the label has no sibling anywhere on its path.
    """
    tree, head = model.label_tree, model.network.label_head
    if tree is None or head is None or level not in tree.levels:
        raise KeyError(level)
    depth = tree.levels.index(level)
    names = list(tree.names[depth])
    if label not in names:
        raise KeyError(label)
    cuts = np.cumsum(head.sizes)[:-1]
    weights = np.split(head.out.weight.detach().float().cpu().numpy(), cuts)
    node, total = names.index(label), np.zeros(model.cell_width, np.float32)
    for place in range(depth, -1, -1):
        parents = np.asarray(tree.parents[place]) if place else np.zeros(len(weights[0]), np.int64)
        siblings = np.setdiff1d(np.flatnonzero(parents == parents[node]), [node])
        if len(siblings):
            total += weights[place][node] - weights[place][siblings].mean(axis=0)
        node = int(parents[node])
    if not total.any():
        raise KeyError(f"{label}: no sibling")
    return total
