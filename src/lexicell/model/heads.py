"""What is asked of the encoded cell: raw counts of held-out genes, a projection for contrast, labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lexicell.labels import LabelTree
from lexicell.model.embedding import DepthEmbedding
from lexicell.model.encoder import Block
from lexicell.model.norm import RMSNorm


class CountDecoder(nn.Module):
    """Held-out genes, as queries, cross-attend to a context and are classified by raw count.

    The context is all encoded tokens of a cell, or its CLS token alone. Total counts are told to the queries: the
    context need not hold them.
    """

    def __init__(self, width: int, heads: int, layers: int, mlp_ratio: float, n_classes: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width, bias=False)
        self.depth = DepthEmbedding(width)
        self.blocks = nn.ModuleList(Block(width, heads, mlp_ratio) for _ in range(layers))
        self.norm = RMSNorm(width)
        self.classifier = nn.Linear(width, n_classes)

    def forward(self, genes: Tensor, depth: Tensor, context: Tensor) -> Tensor:
        """Return count logits: gene embeddings (b, q, width), depth (b,), context (b, m, width) -> (b, q, n_classes).

        The context may hold ``v`` views of the cells, stacked, (v * b, m, width): then so do the logits, and what
        does not depend on the view is computed once.
        """
        x = self.query(genes) + self.depth(depth).unsqueeze(1)
        for block in self.blocks:
            x = block(x, context)
        return self.classifier(self.norm(x))  # type: ignore[no-any-return]


class Projection(nn.Module):
    """Projects a cell to the unit sphere on which two views of a cell are compared (Chen et al. 2020).

    Beside it stands a unit vector of the cell's depth alone, so that two cells are as alike as their
    embeddings plus their depths: that both views are equally deep is explained before the embedding is asked, and
    nothing is won by holding it.
    """

    def __init__(self, inputs: int, width: int, out: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(inputs, width)
        self.out = nn.Linear(width, out)
        self.depth = DepthEmbedding(out)

    def forward(self, cell: Tensor, depth: Tensor) -> Tensor:
        """Project and normalise cells and total counts: (b, width), (b,) -> (b, 2 * out)."""
        projected = self.out(F.silu(self.hidden(cell)))
        return torch.cat([F.normalize(projected, dim=-1), F.normalize(self.depth(depth), dim=-1)], dim=-1)


class LabelHead(nn.Module):
    """A linear head down the label tree.

    Each node is scored against its siblings, so that a path's probability is the product of
    P(child | parent) and a child never exceeds its parent.
    """

    def __init__(self, width: int, tree: LabelTree) -> None:
        super().__init__()
        self.sizes = [len(names) for names in tree.names]
        self.out = nn.Linear(width, sum(self.sizes))
        for level, size in enumerate(self.sizes):
            parent = torch.from_numpy(tree.parents[level]) if level else torch.zeros(size, dtype=torch.long)
            self.register_buffer(f"parent_{level}", parent, persistent=False)
            self.register_buffer(f"log_frequency_{level}", torch.zeros(size), persistent=False)

    def set_frequencies(self, counts: Sequence[Tensor]) -> None:
        """Tell how many training cells each node has, per level (n_nodes,); needed for logit adjustment alone."""
        for level, n_cells in enumerate(counts):
            logs = torch.log(n_cells.float() + 0.5)  # half a cell, for nodes that occur in held-out cells only
            getattr(self, f"log_frequency_{level}").copy_(logs)

    def forward(self, cell: Tensor, adjustment: float = 0.0) -> list[Tensor]:
        """Return log P(node | parent) per level: (b, width) -> list of (b, n_nodes).

        With an adjustment, logits are raised by so much of the log frequency: trained that way and used without,
        the head does not favour frequent labels (logit adjustment, Menon et al. 2021).
        """
        out = []
        for level, logits in enumerate(self.out(cell).float().split(self.sizes, dim=-1)):
            if adjustment:
                logits = logits + adjustment * getattr(self, f"log_frequency_{level}")
            parent = getattr(self, f"parent_{level}")
            n_parents = self.sizes[level - 1] if level else 1
            out.append(_log_softmax_among_siblings(logits, parent, n_parents))
        return out

    def path_log_probabilities(self, cell: Tensor) -> list[Tensor]:
        """Return log P(node) per level, products along the path: (b, width) -> list of (b, n_nodes)."""
        conditional = self(cell)
        paths = [conditional[0]]
        for level in range(1, len(conditional)):
            paths.append(conditional[level] + paths[-1][:, getattr(self, f"parent_{level}")])
        return paths


def _log_softmax_among_siblings(logits: Tensor, parent: Tensor, n_parents: int) -> Tensor:
    """Log-softmax within each group of nodes that share a parent: (b, n) -> (b, n)."""
    index = parent.expand_as(logits)
    highest = logits.new_full((len(logits), n_parents), -torch.inf).scatter_reduce(1, index, logits, "amax")
    shifted = logits - highest.detach().gather(1, index)
    total = logits.new_zeros(len(logits), n_parents).scatter_add(1, index, shifted.exp())
    return shifted - total.log().gather(1, index)
