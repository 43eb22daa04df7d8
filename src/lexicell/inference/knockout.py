"""In-silico knock-out: what becomes of a cell's embedding, labels and expected counts when a gene is taken away.

A cell's gene samples are dealt once, from the cell as it is; in the one sample that shows the gene, the gene is then
silenced (its count set to zero) or removed (not shown). All else stays, the total counts too, so that nothing but the
gene differs. Only cells that express the gene are looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lexicell.data.query import Query
from lexicell.inference.cell_model import TOKENS_AT_ONCE, CellModel

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Mode = Literal["zero", "remove"]

_PAIRS_AT_ONCE = 16_384  # (cell, gene) pairs in a pass of the decoder


@dataclass(frozen=True, eq=False)
class KnockOut:
    """What the knock-outs of some genes did, averaged over cells.

    Attributes
    ----------
    n_cells
        (k,) cells that were altered.
    shift
        (k,) mean distance that the cell's embedding moved.
    aligned
        (k,) length of the mean movement over `shift`: 1 where all cells move the same way.
    own_label
        (k,) mean change of the log probability of the label given for the cells; NaN without one.
    relabelled
        (k,) share of the cells whose most probable label changed; NaN without a label head.
    responses
        (k, r) mean change of the expected log(1 + count) of the genes asked about.
    """

    n_cells: Int64
    shift: Float64
    aligned: Float64
    own_label: Float64
    relabelled: Float64
    responses: Float64

    @property
    def response_size(self) -> Float64:
        """Mean size of a gene's response, (k,)."""
        return np.asarray(np.abs(self.responses).mean(axis=1)) if self.responses.shape[1] else np.zeros(len(self.shift))


class KnockOuts:
    """Cells in which genes can be knocked out: encoded once, as they are.

    Parameters
    ----------
    model
        A trained model.
    query
        The cells; held in memory with their gene samples.
    responding
        (r,) lexicon indices of the genes whose expected counts are followed.
    label
        (level, node) of the label head whose probability is followed, or None.
    """

    def __init__(self, model: CellModel, query: Query, responding: Int64, label: tuple[int, int] | None = None) -> None:
        self._model = model
        self._label = label
        parts = list(model.dealt_samples(query))
        self._cell, self._genes, self._counts, self._depth = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("cell", "genes", "counts", "depth")
        )
        encoded = list(self._encode(self._genes, self._counts, self._depth))
        self._samples = np.concatenate(encoded)
        self._per_cell = np.bincount(self._cell, minlength=query.n_cells)
        self.embedding = np.zeros((query.n_cells, model.cell_width), np.float32)
        np.add.at(self.embedding, self._cell, self._samples)
        self.embedding /= self._per_cell[:, None]
        self._responding = torch.from_numpy(np.array(responding, np.int64)).to(model.device)
        self._expected = self._ask(self.embedding)
        self._own, self._best = self._labels(self.embedding)

    @property
    def between(self) -> float:
        """Root mean squared distance of a cell's embedding from the mean of the cells."""
        away = self.embedding - self.embedding.mean(axis=0)
        return float(np.sqrt((away**2).sum(axis=1).mean()))

    def run(self, genes: Sequence[int], cells: int, rng: np.random.Generator, mode: Mode = "zero") -> KnockOut:
        """Knock out genes, one at a time.

        Parameters
        ----------
        genes
            (k,) lexicon indices.
        cells
            At most so many cells of each gene, drawn among those that express it.
        rng
            Draws them.
        mode
            ``zero`` shows the gene as silent; ``remove`` does not show it.
        """
        which, samples, places = self._draw(genes, cells, rng)
        moved = np.zeros((len(samples), self._model.cell_width), np.float32)
        per_pass = self._per_pass()
        for start in range(0, len(samples), per_pass):
            at = slice(start, start + per_pass)
            moved[at] = self._altered(samples[at], places[at], mode) - self._samples[samples[at]]
        cell = self._cell[samples]
        moved /= self._per_cell[cell][:, None]
        after = self.embedding[cell] + moved
        own, best = self._labels(after)
        k, has_head = len(genes), self._model.network.label_head is not None
        n_cells = np.bincount(which, minlength=k)
        responses = np.zeros((k, len(self._responding)))
        for gene in range(k):
            mine = which == gene
            if mine.any() and len(self._responding):
                responses[gene] = (self._ask(after[mine]) - self._expected[cell[mine]]).mean(axis=0)
        responses[n_cells == 0] = np.nan
        size = np.linalg.norm(moved, axis=1)
        shift = _mean(which, size, k)
        direction = np.zeros((k, self._model.cell_width))
        np.add.at(direction, which, moved)
        together = np.linalg.norm(direction / np.maximum(n_cells, 1)[:, None], axis=1)
        aligned = np.divide(together, shift, out=np.full(k, np.nan), where=shift > 0)
        return KnockOut(
            n_cells,
            shift,
            aligned,
            _mean(which, own - self._own[cell], k),
            _mean(which, np.where(has_head, best != self._best[cell], np.nan), k),
            responses,
        )

    def _per_pass(self) -> int:
        return max(1, TOKENS_AT_ONCE // self._model.spec.tokens)

    def _draw(self, genes: Sequence[int], cells: int, rng: np.random.Generator) -> tuple[Int64, Int64, Int64]:
        """Return which gene, sample and place of the gene in it, for every sample to alter."""
        place_of = np.full(len(self._model.lexicon), -1, np.int64)
        place_of[np.asarray(genes, np.int64)] = np.arange(len(genes))
        which = np.where(self._counts > 0, place_of[self._genes], -1)
        rows, columns = np.nonzero(which >= 0)
        gene = which[rows, columns]
        chosen = []
        for one in range(len(genes)):
            own = np.flatnonzero(gene == one)
            _, first = np.unique(self._cell[rows[own]], return_index=True)  # on small panels a gene may be shown again
            chosen.append(np.sort(rng.permutation(own[first])[:cells]))
        at = np.concatenate(chosen) if chosen else np.zeros(0, np.int64)
        return gene[at], rows[at], columns[at]

    def _altered(self, samples: Int64, places: Int64, mode: Mode) -> Float32:
        genes, counts, depth = self._genes[samples], self._counts[samples].copy(), self._depth[samples]
        row = np.arange(len(samples))
        if mode == "zero":
            counts[row, places] = 0
        else:
            kept = np.ones(genes.shape, bool)
            kept[row, places] = False
            genes, counts = (values[kept].reshape(len(samples), -1) for values in (genes, counts))
        return np.concatenate(list(self._encode(genes, counts, depth)))

    @torch.inference_mode()
    def _encode(self, genes: Int64, counts: Int64, depth: Float32) -> Iterator[Float32]:
        per_pass = self._per_pass()
        for start in range(0, len(genes), per_pass):
            at = slice(start, start + per_pass)
            cell = self._model.network.encode(*self._model.tensors(genes[at], counts[at], depth[at])).cell
            yield cell.float().cpu().numpy()

    @torch.inference_mode()
    def _ask(self, embedding: Float32) -> Float32:
        """Return the expected log(1 + count) of the responding genes in cells (n, r) of typical depth, from CLS."""
        network, n_asked = self._model.network, len(self._responding)
        out = np.zeros((len(embedding), n_asked), np.float32)
        values = torch.log1p(network.count_classes.centres()).to(self._model.device)
        at_once = max(1, _PAIRS_AT_ONCE // max(n_asked, 1))
        for start in range(0, len(embedding) if n_asked else 0, at_once):
            part = embedding[start : start + at_once, : self._model.width]
            cls = torch.from_numpy(np.ascontiguousarray(part)).to(self._model.device)
            asked = self._responding.unsqueeze(0).expand(len(cls), -1)
            chances: Tensor = network.count_logits(asked, cls.unsqueeze(1)).float().softmax(dim=-1)
            out[start : start + at_once] = (chances @ values).cpu().numpy()
        return out

    @torch.inference_mode()
    def _labels(self, embedding: Float32) -> tuple[Float64, Int64]:
        """Return the log probability of the label followed, and the most probable label of its level (or the last)."""
        head = self._model.network.label_head
        if head is None or not len(embedding):
            return np.full(len(embedding), np.nan), np.zeros(len(embedding), np.int64)
        level, node = self._label if self._label is not None else (len(head.sizes) - 1, -1)
        logs = head.path_log_probabilities(torch.from_numpy(embedding).to(self._model.device))[level].cpu().numpy()
        own = logs[:, node].astype(np.float64) if node >= 0 else np.full(len(logs), np.nan)
        return own, logs.argmax(axis=1).astype(np.int64)


def _mean(which: Int64, values: npt.NDArray[np.floating], k: int) -> Float64:
    """Return the mean of the values of each gene (k,); NaN where there is none."""
    n = np.bincount(which, minlength=k)
    total = np.bincount(which, np.asarray(values, np.float64), minlength=k)
    return np.asarray(np.divide(total, n, out=np.full(k, np.nan), where=n > 0))
