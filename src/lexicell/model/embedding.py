"""What a token is made of: gene, count class; and the CLS token: covariates, a bag of the shown genes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lexicell.model.norm import RMSNorm


class GrowingTable(nn.Module):
    """A table of embeddings that can grow, and whose old rows can stand still.

    Rows that must not move are a parameter of their own without gradient: a row that is merely given a zero
    gradient would still be moved by weight decay and momentum.
    """

    def __init__(self, n_rows: int, width: int) -> None:
        super().__init__()
        self.frozen = nn.Parameter(torch.empty(0, width), requires_grad=False)
        self.rows = nn.Parameter(torch.empty(n_rows, width))

    def __len__(self) -> int:
        return len(self.frozen) + len(self.rows)

    @property
    def weight(self) -> Tensor:
        """The whole table, (n_rows, width)."""
        return torch.cat([self.frozen, self.rows]) if len(self.frozen) else self.rows

    def forward(self, indices: Tensor) -> Tensor:
        """Return some rows: (...) int64 -> (..., width)."""
        n_frozen = len(self.frozen)
        if not n_frozen:
            return F.embedding(indices, self.rows)
        old = F.embedding(indices.clamp(max=n_frozen - 1), self.frozen)
        if not len(self.rows):
            return old
        new = F.embedding((indices - n_frozen).clamp(min=0), self.rows)
        return torch.where((indices < n_frozen).unsqueeze(-1), old, new)

    def extend(self, new_rows: Tensor) -> None:
        """Append rows, (n_new, width); the index of an old row stays."""
        self.rows = nn.Parameter(torch.cat([self.rows.detach(), new_rows.to(self.rows)]))

    def freeze(self, n_frozen: int) -> None:
        """Make the first ``n_frozen`` rows immovable, and only those."""
        whole = self.weight.detach()
        self.frozen = nn.Parameter(whole[:n_frozen].clone(), requires_grad=False)
        self.rows = nn.Parameter(whole[n_frozen:].clone())


class GeneEmbedding(GrowingTable):
    """The gene table: one row a gene of the lexicon."""


class DepthEmbedding(nn.Module):
    """Embeds a cell's total counts, on a log scale.

    Depth is what two views of a cell agree on most easily, and what raw counts depend on most: a CLS that is told
    it, or that must know it, holds little else. So depth is told to what is asked of the cell, decoder and
    contrast, and not to the trunk; as scVI's decoder is told the library size (Lopez et al. 2018).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(2, width)
        self.out = nn.Linear(width, width)

    def forward(self, depth: Tensor) -> Tensor:
        """Embed total counts: (b,) -> (b, width)."""
        x = (torch.log10(depth.clamp(min=1)) - 3.5).unsqueeze(-1)
        embedded: Tensor = self.out(F.silu(self.hidden(torch.cat([x, x * x], dim=-1))))
        return embedded


class GeneBag(nn.Module):
    """Sums the shown genes' embeddings, weighted by how far their counts are from usual, into one vector a cell.

    A linear path from counts to CLS, as in a factorised linear classifier: what a linear model can tell of a cell
    need not be found by attention first. A weight is the gene's log(1 + counts per 10,000) less its mean over the
    training cells, so that the bag holds what sets a cell apart.
    """

    usual: Tensor

    def __init__(self, n_genes: int, width: int) -> None:
        super().__init__()
        self.register_buffer("usual", torch.zeros(n_genes))
        self.norm = RMSNorm(width)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, genes: Tensor, rows: Tensor, counts: Tensor, depth: Tensor) -> Tensor:
        """Sum up: genes and raw counts (b, l), embeddings (b, l, width), total counts (b,) -> (b, width)."""
        return self.read(self.weights(genes, counts, depth), rows)

    def weights(self, genes: Tensor, counts: Tensor, depth: Tensor) -> Tensor:
        """Return how far raw counts are from usual: genes and counts (b, l), total counts (b,) -> (b, l)."""
        return torch.log1p(counts * (1e4 / depth.clamp(min=1)).unsqueeze(-1)) - self.usual[genes]

    def read(self, weights: Tensor, rows: Tensor) -> Tensor:
        """Sum embeddings up by weight: (b, l), (b, l, width) -> (b, width)."""
        bag = (weights.to(rows.dtype).unsqueeze(1) @ rows).squeeze(1)
        return self.out(self.norm(bag))  # type: ignore[no-any-return]

    def extend(self, usual: Tensor) -> None:
        """Append genes by what is usual of them, (n_new,)."""
        self.usual = torch.cat([self.usual, usual.to(self.usual)])


class CovariateEmbedding(nn.Module):
    """Sums one embedding per covariate; level 0 is unknown."""

    def __init__(self, n_levels: Sequence[int], width: int) -> None:
        super().__init__()
        self.tables = nn.ModuleList(GrowingTable(n + 1, width) for n in n_levels)
        self.width = width

    def forward(self, covariates: Tensor) -> Tensor:
        """Embed covariates: (b, c) int64 -> (b, width)."""
        out = torch.zeros(len(covariates), self.width, device=covariates.device)
        for column, table in enumerate(self.tables):
            out = out + table(covariates[:, column])
        return out

    @torch.no_grad()
    def extend(self, n_levels: Sequence[int]) -> None:
        """Grow to these numbers of levels; what old levels and the unknown one mean stays.

        A new level of an old covariate begins as the mean of its old levels. A covariate that is new begins as
        zeros: it changes nothing before it is trained.
        """
        for column, n in enumerate(n_levels):
            if column == len(self.tables):
                table = GrowingTable(n + 1, self.width)
                nn.init.zeros_(table.rows)
                self.tables.append(table)
            table = self.tables[column]  # type: ignore[assignment]
            old = table.weight[1:]
            mean = old.mean(dim=0) if len(old) else old.new_zeros(self.width)
            table.extend(mean.expand(n + 1 - len(table), -1))
