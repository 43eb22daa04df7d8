"""What counts do to a cell's embedding: a step to the next class, and a cap on the classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from rich.progress import track
from torch import Tensor

from lexicell.data.query import Query
from lexicell.inference.cell_model import TOKENS_AT_ONCE, CellModel, DealtSamples

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class CountEffects:
    """How far the embedding moves.

    Attributes
    ----------
    occurs
        (n_classes,) expressed counts of the cells in each class; zeros, which are most, are not counted.
    clamped
        Counts above the last class.
    tokens
        (n_classes,) tokens that were looked at.
    step
        (n_classes,) mean distance that the cell's embedding moves when one token's class is raised by one; NaN for the
        last class and for those that do not occur.
    removal
        (n_classes,) the same, when the token's class is set to zero.
    caps
        (m,) classes to which all higher ones were lowered.
    capped
        (m,) mean distance that a cell's embedding moves then.
    between
        Mean distance of a cell's embedding from that of another cell.
    """

    occurs: Int64
    clamped: int
    tokens: Int64
    step: Float64
    removal: Float64
    caps: Int64
    capped: Float64
    between: float


@torch.inference_mode()
def count_effects(
    model: CellModel,
    query: Query,
    *,
    caps: Sequence[int],
    tokens: int,
    rng: np.random.Generator,
    progress: bool = False,
) -> CountEffects:
    """Measure what the classes of tokens' counts do to the embedding of their cell.

    Only a token's class is changed. What a count does through the bag of genes, by its logarithm, stays.

    Parameters
    ----------
    model
        A trained model.
    query
        Some cells; all are held in memory.
    caps
        Classes to cap at.
    tokens
        At most so many tokens of each class, each of another sample where that can be.
    rng
        Draws them.
    progress
        Show a progress bar.
    """
    samples = list(model.dealt_samples(query, batch_size=max(1, TOKENS_AT_ONCE // (2 * model.spec.tokens))))
    classes_of = model.network.count_classes
    edges = classes_of.edges.cpu().numpy()
    classes = [np.searchsorted(edges, part.counts, side="right") - 1 for part in samples]
    n_classes = len(edges)
    per_cell = np.bincount(np.concatenate([part.cell for part in samples]), minlength=query.n_cells)
    drawn = _draw_tokens(classes, n_classes, tokens, rng)
    moved = np.zeros((n_classes, 2))
    embedding = np.zeros((query.n_cells, model.cell_width))
    capped = np.zeros((len(caps), query.n_cells, model.cell_width))
    for place, part in enumerate(track(samples, description="changing counts", disable=not progress)):
        before = _encode(model, part, classes[place])
        np.add.at(embedding, part.cell, before)
        for c, cap in enumerate(caps):
            np.add.at(capped[c], part.cell, _encode(model, part, np.minimum(classes[place], cap)))
        row, column = drawn[place]
        for start in range(0, len(row), len(part.cell)):
            r, t = row[start : start + len(part.cell)], column[start : start + len(part.cell)]
            own = DealtSamples(part.cell[r], part.genes[r], part.counts[r], part.depth[r])
            was = classes[place][r, t]
            for kind, now in enumerate((np.minimum(was + 1, n_classes - 1), np.zeros_like(was))):
                altered = classes[place][r]
                altered[np.arange(len(r)), t] = now
                np.add.at(moved[:, kind], was, np.linalg.norm(_encode(model, own, altered) - before[r], axis=1))
    seen = np.bincount(
        np.concatenate([classes[p][row, column] for p, (row, column) in enumerate(drawn)]), minlength=n_classes
    )
    moved = np.where(seen[:, None] > 0, moved / np.maximum(seen, 1)[:, None], np.nan)
    moved[-1, 0] = np.nan
    embedding /= per_cell[:, None]
    shift = np.linalg.norm(capped / per_cell[None, :, None] - embedding[None], axis=2).mean(axis=1)
    other = np.roll(rng.permutation(query.n_cells), 1)
    between = float(np.linalg.norm(embedding - embedding[other], axis=1).mean())
    known = query.counts[:, query.gene_index >= 0].data
    occurs = np.bincount(np.searchsorted(edges, known, side="right") - 1, minlength=n_classes)
    clamped = int((known > classes_of.max_count).sum())
    return CountEffects(occurs, clamped, seen, moved[:, 0], moved[:, 1], np.asarray(caps, np.int64), shift, between)


def _draw_tokens(
    classes: list[Int64], n_classes: int, most: int, rng: np.random.Generator
) -> list[tuple[Int64, Int64]]:
    """Return, for each pass, rows and columns of the tokens to change: at most so many of each class but zero."""
    place = np.concatenate([np.full(part.size, p) for p, part in enumerate(classes)])
    flat = np.concatenate([np.arange(part.size) for part in classes])
    value = np.concatenate([part.ravel() for part in classes])
    chosen = []
    for c in range(1, n_classes):
        own = np.flatnonzero(value == c)
        chosen.append(rng.permutation(own)[:most])
    kept = np.sort(np.concatenate(chosen))
    out = []
    for p, part in enumerate(classes):
        own = flat[kept[place[kept] == p]]
        out.append((own // part.shape[1], own % part.shape[1]))
    return out


def _encode(model: CellModel, part: DealtSamples, classes: Int64) -> npt.NDArray[np.float32]:
    """Return samples whose tokens have these classes, encoded, (b, cell width)."""
    network = model.network
    genes, counts, depth, told = model.tensors(part.genes, part.counts, part.depth)
    counted: Tensor = network.counts(torch.from_numpy(classes).to(model.device))
    weights = network.bag.weights(genes, counts, depth)
    cell = network.read(network.genes(genes), counted, weights, told).cell
    return np.asarray(cell.float().cpu().numpy())
