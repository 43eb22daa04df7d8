"""Count skill: how much better than a gene's own marginal are held-out raw counts predicted?

skill = 1 - CE / CE_baseline, both summed over the same queries. The baseline is the gene's distribution of count
classes given the cell's depth, fitted on training cells and weighted to the way queries are sampled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from lexicell.data.cells import CellCollection
from lexicell.data.gene_sampler import SampleShape, query_probabilities

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

N_DEPTH_BINS = 8
LEAST_MARGINAL = -6.0  # nats; without it, counts of 5 and more were learned worse than from nothing
MAX_CELLS = 50_000  # cells that a baseline is fitted on: enough for 8 bins, and seconds to read
SMOOTHINGS = (
    0.3,
    1.0,
    3.0,
    10.0,
    30.0,
    100.0,
)  # pseudo-cells; chosen between the halves of the training cells

COUNT_STRATA = {"0": 0, "1": 1, "2-4": 2, "5-19": 5, "20+": 20}  # name: smallest true count
MEAN_STRATA = {
    "mean<0.01": 0.0,
    "mean 0.01-0.1": 0.01,
    "mean 0.1-1": 0.1,
    "mean>=1": 1.0,
}  # smallest mean count


class CountBaseline(nn.Module):
    """A gene's distribution of count classes given depth.

    Parameters
    ----------
    log_probabilities
        (depth bins, n_genes, n_classes) log P(class | gene, depth bin).
    depth_edges
        (depth bins - 1,) inner edges of the bins, in total counts.
    gene_mean
        (n_genes,) mean count over the training cells that measured the gene.
    """

    log_probabilities: Tensor
    depth_edges: Tensor
    gene_mean: Tensor

    def __init__(self, log_probabilities: Tensor, depth_edges: Tensor, gene_mean: Tensor) -> None:
        super().__init__()
        self.register_buffer("log_probabilities", log_probabilities, persistent=False)
        self.register_buffer("depth_edges", depth_edges, persistent=False)
        self.register_buffer("gene_mean", gene_mean, persistent=False)

    def forward(self, genes: Tensor, classes: Tensor, depth: Tensor) -> Tensor:
        """Return the baseline's cross-entropy of each query in nats: (b, q), (b, q), (b,) -> (b, q)."""
        bins = torch.bucketize(depth, self.depth_edges)
        return -self.log_probabilities[bins.unsqueeze(1), genes, classes]

    def marginal(self) -> Tensor:
        """Return log P(class | gene) over all depth bins, which hold about as many cells each: (n_genes, n_classes).

        It is never below `LEAST_MARGINAL`: a model that begins from it must be able to learn that the cells of one type
        show counts which hardly any cell shows.
        """
        marginal = self.log_probabilities.logsumexp(dim=0) - math.log(len(self.log_probabilities))
        return marginal.clamp(min=LEAST_MARGINAL)


@dataclass(frozen=True)
class _Tally:
    """Weighted observations per depth bin, gene and class."""

    observed: Float64  # (bins, genes, classes)

    def smoothed(self, strength: float) -> Float64:
        """Shrink towards the gene's marginal over all depths, and that towards the average gene's."""
        per_gene = self.observed.sum(axis=0)
        average = per_gene.sum(axis=0)
        average = (average + 1e-3) / (average + 1e-3).sum()
        marginal = (per_gene + strength * average) / (per_gene.sum(axis=-1, keepdims=True) + strength)
        total = self.observed.sum(axis=-1, keepdims=True)
        smoothed: Float64 = (self.observed + strength * marginal) / (total + strength)
        return smoothed


def fit_baseline(
    collection: CellCollection,
    cells: Int64,
    shape: SampleShape,
    edges: Int64,
    rng: np.random.Generator,
) -> CountBaseline:
    """Fit the baseline on training cells.

    Parameters
    ----------
    collection, cells
        All cells, and those to train on.
    shape
        Numbers of tokens and queries, from which follow each cell's chances of being asked.
    edges
        (n_classes,) smallest count of each class.
    rng
        Draws the cells to fit on, where there are very many, and the halves that choose the smoothing.
    """
    drawn = rng.permutation(len(cells))[:MAX_CELLS]
    halves = np.sort(cells[drawn[0::2]]), np.sort(cells[drawn[1::2]])
    depth_edges = np.unique(
        np.quantile(collection.depth[cells], np.linspace(0, 1, N_DEPTH_BINS + 1)[1:-1]).astype(np.float32)
    )
    tallies = [_tally(collection, half, shape, edges, depth_edges) for half in halves]
    losses = []
    for strength in SMOOTHINGS:
        probabilities = [tally.smoothed(strength) for tally in tallies]
        losses.append(
            -(tallies[0].observed * np.log(probabilities[1])).sum()
            - (tallies[1].observed * np.log(probabilities[0])).sum()
        )
    best = SMOOTHINGS[int(np.argmin(losses))]
    whole = _Tally(tallies[0].observed + tallies[1].observed).smoothed(best)
    return CountBaseline(
        torch.from_numpy(np.log(whole).astype(np.float32)),
        torch.from_numpy(depth_edges),
        torch.from_numpy(_gene_means(collection, np.concatenate(halves))),
    )


def _row_of_entry(begin: Int64, end: Int64) -> Int64:
    """Row of every stored entry, in storage order."""
    order = np.argsort(begin, kind="stable")
    return np.repeat(order, (end - begin)[order])


def _tally(
    collection: CellCollection,
    cells: Int64,
    shape: SampleShape,
    edges: Int64,
    depth_edges: npt.NDArray[np.float32],
) -> _Tally:
    n_genes, n_classes, n_bins = len(collection.lexicon), len(edges), len(depth_edges) + 1
    observed = np.zeros((n_bins, n_genes, n_classes))
    for chunk in np.array_split(cells, max(1, len(cells) // 4096)):
        rows, bins = collection.rows(chunk), np.searchsorted(depth_edges, collection.depth[chunk])
        panel = collection.panel[chunk]
        if_expressed, if_silent = np.empty(len(chunk)), np.empty(len(chunk))
        for p in np.unique(panel):
            mine = panel == p
            n_expressed = (rows.end - rows.begin)[mine]
            if_expressed[mine], if_silent[mine] = query_probabilities(shape, n_expressed, len(collection.panels[p]))
        row = _row_of_entry(rows.begin, rows.end)
        classes = np.searchsorted(edges, rows.counts, side="right") - 1
        place = (bins[row] * n_genes + rows.genes) * n_classes
        observed += np.bincount(place + classes, weights=if_expressed[row], minlength=observed.size).reshape(
            observed.shape
        )
        silent = np.zeros((n_bins, n_genes))
        for p in np.unique(panel):
            per_bin = np.bincount(bins[panel == p], weights=if_silent[panel == p], minlength=n_bins)
            silent[:, collection.panels[p]] += per_bin[:, None]
        expressed = np.bincount(bins[row] * n_genes + rows.genes, weights=if_silent[row], minlength=silent.size)
        observed[:, :, 0] += np.maximum(silent - expressed.reshape(silent.shape), 0)
    # In units of cells: a silent gene of an average cell weighs one.
    return _Tally(observed * (len(cells) / max(observed[:, :, 0].max(axis=1).sum(), 1e-9)))


def _gene_means(collection: CellCollection, cells: Int64) -> npt.NDArray[np.float32]:
    total, measured = np.zeros(len(collection.lexicon)), np.zeros(len(collection.lexicon))
    for chunk in np.array_split(cells, max(1, len(cells) // 4096)):
        rows = collection.rows(chunk)
        total += np.bincount(rows.genes, weights=rows.counts, minlength=len(total))
        for p, n in zip(*np.unique(collection.panel[chunk], return_counts=True), strict=True):
            measured[collection.panels[p]] += n
    return (total / np.maximum(measured, 1)).astype(np.float32)


class SkillMeter:
    """Sums cross-entropies of the model and of the baseline, overall and by stratum.

    Strata by the true count are diagnostics only: chosen by the outcome, a stratum can be won by overpredicting.
    """

    names = ("overall", *COUNT_STRATA, *MEAN_STRATA)

    def __init__(self, device: torch.device | str = "cpu") -> None:
        # Apple's GPUs have no float64.
        dtype = torch.float32 if torch.device(device).type == "mps" else torch.float64
        self.sums = torch.zeros(len(self.names), 3, dtype=dtype, device=device)

    def update(self, ce: Tensor, baseline_ce: Tensor, counts: Tensor, gene_mean: Tensor) -> None:
        """Add queries; all four of one shape: two cross-entropies in nats, true raw counts, mean counts."""
        values = torch.stack([ce, baseline_ce, torch.ones_like(ce)], dim=-1).to(self.sums.dtype).flatten(0, -2)
        self.sums[0] += values.sum(dim=0)
        offset = 1
        for value, strata in ((counts, COUNT_STRATA), (gene_mean, MEAN_STRATA)):
            bounds = torch.tensor(list(strata.values()), device=value.device, dtype=torch.float32)
            stratum = torch.bucketize(value.float().flatten(), bounds, right=True) - 1
            self.sums.index_add_(0, stratum + offset, values)
            offset += len(strata)

    def compute(self) -> dict[str, float]:
        """Return ``ce``, ``baseline_ce``, ``skill`` and ``skill/STRATUM`` for every stratum that has queries."""
        sums = self.sums.cpu().tolist()
        out = {"ce": sums[0][0] / max(sums[0][2], 1), "baseline_ce": sums[0][1] / max(sums[0][2], 1)}
        for name, (ce, baseline, n) in zip(self.names, sums, strict=True):
            if n and baseline > 0:
                out["skill" if name == "overall" else f"skill/{name}"] = 1 - ce / baseline
        return out
