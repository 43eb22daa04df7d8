"""Who attends to whom: attention between genes, averaged over cells, for each layer and head, and rolled out.

A weight is given relative to uniform attention (times the number of tokens): 1 is what chance would give. Only tokens
that a cell expresses count; which genes of a cell meet in one gene sample is chance, so that a pair is averaged over
the cells in which it met.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lexicell.data.query import Query
from lexicell.inference.cell_model import CellModel

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]

NUMBERS_AT_ONCE = 1 << 25  # attention weights that a forward pass may hold


@dataclass(eq=False)
class AttentionSums:
    """Sums of relative attention over cells, of some genes; further cells can be added.

    Attributes
    ----------
    genes
        (n,) lexicon indices.
    maps
        Names of the maps: ``layer 1, head 1`` and so on, then ``rollout``.
    pairs
        (n, n) in how many cells the two genes met.
    sums
        (n_maps, n, n) summed relative attention of the row's gene to the column's.
    shown
        (n_lexicon,) in how many cells each gene of the lexicon was shown.
    cls
        (n_maps, n_lexicon) summed relative attention of CLS to each gene of the lexicon.
    """

    genes: Int64
    maps: tuple[str, ...]
    pairs: Float32
    sums: Float32
    shown: Float32
    cls: Float32

    @classmethod
    def empty(cls, model: CellModel, genes: Int64) -> AttentionSums:
        """Return sums over no cells."""
        encoder, n, n_lexicon = model.spec.config.encoder, len(genes), len(model.lexicon)
        names = [f"layer {i + 1}, head {h + 1}" for i in range(encoder.layers) for h in range(encoder.heads)]
        maps = (*names, "rollout")
        return cls(
            np.asarray(genes, np.int64),
            maps,
            np.zeros((n, n), np.float32),
            np.zeros((len(maps), n, n), np.float32),
            np.zeros(n_lexicon, np.float32),
            np.zeros((len(maps), n_lexicon), np.float32),
        )

    def add(self, other: AttentionSums) -> None:
        """Add other cells' sums."""
        self.pairs += other.pairs
        self.sums += other.sums
        self.shown += other.shown
        self.cls += other.cls

    def mean(self, which: int, least: int = 1) -> Float32:
        """Return one map's mean relative attention (n, n); NaN where genes met in fewer than `least` cells."""
        return np.where(self.pairs >= least, self.sums[which] / np.maximum(self.pairs, 1), np.nan).astype(np.float32)

    def head_mean(self, least: int = 1) -> Float32:
        """Return the mean over all heads of all layers (n, n)."""
        total = self.sums[:-1].mean(axis=0)
        return np.where(self.pairs >= least, total / np.maximum(self.pairs, 1), np.nan).astype(np.float32)


@torch.inference_mode()
def attention_sums(
    model: CellModel, parts: Iterable[Query], genes: Int64, *, samples: int | None = None
) -> AttentionSums:
    """Sum the attention between genes up over cells.

    Memory is (heads + 1) x genes^2 numbers, and the weights of one layer of one forward pass; cells stream through.

    Parameters
    ----------
    model
        A trained model.
    parts
        The cells.
    genes
        (n,) lexicon indices of the genes between which attention is kept.
    samples
        At most so many gene samples a cell.
    """
    found = AttentionSums.empty(model, genes)
    place = np.full(len(model.lexicon), -1, np.int64)
    place[found.genes] = np.arange(len(found.genes))
    heads, length = model.spec.config.encoder.heads, model.spec.tokens + 1
    per_pass = max(1, NUMBERS_AT_ONCE // (heads * length**2))
    for query in parts:
        for dealt in model.dealt_samples(query, samples=samples, batch_size=per_pass):
            tensors = model.tensors(dealt.genes, dealt.counts, dealt.depth)
            _add(found, model, tensors, place, dealt.genes, dealt.counts > 0)
    return found


def _add(
    found: AttentionSums,
    model: CellModel,
    tensors: tuple[Tensor, Tensor, Tensor, Tensor],
    place: Int64,
    genes: Int64,
    expressed: npt.NDArray[np.bool_],
) -> None:
    network = model.network
    ids, counts, depth, told = tensors
    weights = network.bag.weights(ids, counts, depth)
    counted = network.counts(network.count_classes(counts))
    rows = network.genes(ids)
    x = network.inputs(rows, counted, network.bag.read(weights, rows), told)
    kept = [np.flatnonzero((place[row] >= 0) & shown) for row, shown in zip(genes, expressed, strict=True)]
    rolled: Tensor | None = None
    n_heads = model.spec.config.encoder.heads
    for layer, attention in enumerate(network.encoder.attention_weights(x)):
        _collect(found, layer * n_heads, attention, kept, place, genes, expressed)
        step = rollout_step(attention)
        rolled = step if rolled is None else step @ rolled
    assert rolled is not None
    _collect(found, len(found.maps) - 1, rolled.unsqueeze(1), kept, place, genes, expressed)
    for row, own in enumerate(kept):
        at = place[genes[row, own]]
        found.pairs[at[:, None], at] += 1
    np.add.at(found.shown, genes[expressed], 1)


def _collect(
    found: AttentionSums,
    first: int,
    attention: Tensor,
    kept: list[Int64],
    place: Int64,
    genes: Int64,
    expressed: npt.NDArray[np.bool_],
) -> None:
    """Add attention (b, heads, l, l) to the maps from `first` on."""
    n_heads, length = attention.shape[1], attention.shape[-1]
    relative = (attention.float() * length).cpu().numpy()
    for row, own in enumerate(kept):
        at = place[genes[row, own]]
        inner = relative[row][:, 1 + own][:, :, 1 + own]
        found.sums[first : first + n_heads, at[:, None], at] += inner
    for head in range(n_heads):
        np.add.at(found.cls[first + head], genes[expressed], relative[:, head, 0, 1:][expressed])


def rollout_step(attention: Tensor) -> Tensor:
    """Return one layer's factor of attention rollout (Abnar & Zuidema 2020): half the mean over heads, half identity.

    Parameters
    ----------
    attention
        (b, heads, l, l) weights.

    Returns
    -------
    Tensor, (b, l, l)
        Rows sum to 1. Factors are multiplied from the last layer to the first; the product says how much of each
        token's state is of which input token, as far as attention alone carries it.
    """
    eye = torch.eye(attention.shape[-1], device=attention.device, dtype=attention.dtype)
    return (attention.mean(dim=1) + eye) / 2
