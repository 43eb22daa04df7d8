"""Losses as pure functions of tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def count_cross_entropy(logits: Tensor, classes: Tensor) -> Tensor:
    """Return the cross-entropy of each count class, in nats: (..., n_classes), (...) -> (...)."""
    losses = F.cross_entropy(logits.flatten(0, -2), classes.flatten(), reduction="none")
    return losses.view(classes.shape)


def ordinal_cross_entropy(logits: Tensor, classes: Tensor, smoothing: float) -> Tensor:
    """Return the cross-entropy of count classes whose targets are smeared over their neighbours, in nats.

    A class from the second on gives `smoothing` of its weight to the classes beside it, half to each; 0 against 1, a
    gene seen or not, stays sharp, and so the last class gives to the one before alone.

    Parameters
    ----------
    logits, classes
        (..., n_classes), (...).
    smoothing
        Share of the weight that the neighbours get.

    Returns
    -------
    Tensor
        (...)
    """
    logs = logits.log_softmax(dim=-1)
    last = logits.shape[-1] - 1
    steps = torch.stack([classes, (classes - 1).clamp(min=0), (classes + 1).clamp(max=last)], dim=-1)
    beside = torch.full_like(logs[..., 0], smoothing / 2) * (classes >= 2)
    above = beside * (classes < last)
    weights = torch.stack([1 - beside - above, beside, above], dim=-1)
    return -(logs.gather(-1, steps) * weights).sum(dim=-1)


def info_nce(
    first: Tensor, second: Tensor, temperature: float, others: tuple[Tensor, Tensor] | None = None, start: int = 0
) -> Tensor:
    """Return the symmetric InfoNCE loss between two views (van den Oord et al. 2018; Radford et al. 2021).

    Parameters
    ----------
    first, second
        (b, width) unit vectors; row ``i`` of both is the same cell.
    temperature
        Divides the cosine similarities.
    others
        Both views of all cells to compare with, (n, width) each; by default those of `first` and `second`.
    start
        Row of `others` at which the b cells themselves stand.

    Returns
    -------
    Tensor
        The mean over the b cells.
    """
    all_first, all_second = (first, second) if others is None else others
    same = torch.arange(start, start + len(first), device=first.device)
    forth = first.float() @ all_second.float().T / temperature
    back = second.float() @ all_first.float().T / temperature
    return (F.cross_entropy(forth, same) + F.cross_entropy(back, same)) / 2


def label_cross_entropy(log_probabilities: Sequence[Tensor], labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the summed cross-entropy down the label tree, and the number of labels it is summed over.

    Parameters
    ----------
    log_probabilities
        Per level, (b, n_nodes) log P(node | parent).
    labels
        (b, n_levels) node per level; -1 where there is no label.
    """
    total = log_probabilities[0].new_zeros(())
    n_labels = (labels >= 0).sum()
    for level, scores in enumerate(log_probabilities):
        known = labels[:, level] >= 0
        picked = scores.gather(1, labels[:, level].clamp(min=0)[:, None])[:, 0]
        total = total - torch.where(known, picked, 0.0).sum()
    return total, n_labels
