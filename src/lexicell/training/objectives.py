"""What is optimised: one small class an objective, each weighted in the recipe."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from lexicell.batch import CellBatch
from lexicell.errors import InputError
from lexicell.model.losses import count_cross_entropy, info_nce, label_cross_entropy, ordinal_cross_entropy
from lexicell.model.network import CellNetwork, Encoded
from lexicell.training.ranks import gather_rows, rank, sum_over_ranks, world_size


@dataclass(frozen=True)
class ObjectiveConfig:
    """Weights of the objectives; 0 switches one off."""

    counts: float = 1.0
    """Cross-entropy of held-out raw counts, read from all tokens of a view."""
    cls_counts: float = 0.5
    """The same read from CLS alone, which makes CLS hold the cell."""
    contrastive: float = 0.1
    """InfoNCE between the two gene-disjoint views of a cell; needs sampling.views = 2."""
    labels: float = 0.5
    """Cross-entropy down the label tree, where the stores carry labels."""
    label_balance: float = 1.0
    """Logit adjustment: 0 learns labels as frequent as they are, 1 as if all were equally frequent."""
    temperature: float = 0.1
    """Temperature of InfoNCE."""
    smoothing: float = 0.0
    """Share of a count class's weight that its neighbouring classes get as targets; 0 and 1 stay sharp."""

    def __post_init__(self) -> None:
        weights = (self.counts, self.cls_counts, self.contrastive, self.labels)
        if min(weights) < 0 or max(weights) == 0 or self.temperature <= 0 or not 0 <= self.smoothing < 1:
            raise InputError(
                "objectives: weights must not be negative, one at least must be positive, and so must temperature; "
                f"smoothing lies between 0 and 1; got {self}"
            )


class Forward:
    """One batch on its way through the network; what several objectives need is computed once.

    Views are stacked along the batch: cell ``i`` of view ``j`` is row ``j * b + i``.

    Parameters
    ----------
    network
        The network.
    batch
        Cells.
    spread
        Whether the batch is this process's share of a global one. Losses are then such that their mean over
        processes is the loss of the global batch; all processes must compute them, in the same order.
    """

    def __init__(self, network: CellNetwork, batch: CellBatch, *, spread: bool = False) -> None:
        self.network, self.batch = network, batch
        self.spread = spread and world_size() > 1

    def _per_view(self, values: Tensor) -> Tensor:
        """Repeat per-cell values for each view: (b, ...) -> (v * b, ...)."""
        return values.repeat(self.batch.n_views, *[1] * (values.dim() - 1))

    @cached_property
    def depth(self) -> Tensor:
        """Total counts of each cell, (v * b,)."""
        return self._per_view(self.batch.depth)

    @cached_property
    def encoded(self) -> Encoded:
        """Encoded views."""
        batch = self.batch
        return self.network.encode(
            batch.genes.flatten(0, 1),
            batch.counts.flatten(0, 1),
            self.depth,
            self._per_view(batch.covariates),
        )

    @cached_property
    def query_classes(self) -> Tensor:
        """Count class of each query, (v * b, q)."""
        return self._per_view(self.network.count_classes(self.batch.query_counts))

    @cached_property
    def query_rows(self) -> Tensor:
        """Embedding of each query's gene, (b, q, width); the decoder lays them over the views."""
        return self.network.genes(self.batch.query_genes)  # type: ignore[no-any-return]

    def count_logits(self, context: Tensor) -> Tensor:
        """Logits of each query's count given a context, (v * b, q, n_classes)."""
        return self.network.count_logits(self.batch.query_genes, context, self.batch.depth, self.query_rows)

    @cached_property
    def query_logits(self) -> Tensor:
        """Logits of each query's count given all tokens of a view, (v * b, q, n_classes)."""
        return self.count_logits(self.encoded.context)

    @cached_property
    def query_ce(self) -> Tensor:
        """Cross-entropy of each query given all tokens of a view, (v * b, q)."""
        return count_cross_entropy(self.query_logits, self.query_classes)


class Objective(Protocol):
    """A loss term."""

    name: ClassVar[str]

    def loss(self, forward: Forward) -> Tensor:
        """Return the mean loss of a batch, a scalar; see `Forward` for a batch that is spread over processes."""
        ...


@dataclass(frozen=True)
class CountObjective:
    """Held-out raw counts from all tokens."""

    smoothing: float = 0.0
    name: ClassVar[str] = "counts"

    def loss(self, forward: Forward) -> Tensor:
        """Return the mean cross-entropy over queries; every process asks as many."""
        if self.smoothing:
            return ordinal_cross_entropy(forward.query_logits, forward.query_classes, self.smoothing).mean()
        return forward.query_ce.mean()


@dataclass(frozen=True)
class ClsCountObjective:
    """Held-out raw counts from CLS alone."""

    smoothing: float = 0.0
    name: ClassVar[str] = "cls_counts"

    def loss(self, forward: Forward) -> Tensor:
        """Return the mean cross-entropy over queries; every process asks as many."""
        logits = forward.count_logits(forward.encoded.cls.unsqueeze(1))
        if self.smoothing:
            return ordinal_cross_entropy(logits, forward.query_classes, self.smoothing).mean()
        return count_cross_entropy(logits, forward.query_classes).mean()


@dataclass(frozen=True)
class ContrastiveObjective:
    """Two views of a cell are nearer to each other than to other cells' views, given how deep all of them are."""

    temperature: float
    name: ClassVar[str] = "contrastive"

    def loss(self, forward: Forward) -> Tensor:
        """Return the mean InfoNCE over cells."""
        first, second = forward.network.projection(forward.encoded.cell, forward.depth).chunk(2)
        if not forward.spread:
            return info_nce(first, second, self.temperature)
        everywhere = gather_rows(first), gather_rows(second)
        return info_nce(first, second, self.temperature, everywhere, rank() * len(first))


@dataclass(frozen=True)
class LabelObjective:
    """Labels of the cell from the mean of its views, as labels are read from the mean of its samples at inference.

    One view shows a part of a cell's genes, perhaps not its markers: a head trained on views apart learns to guess.
    """

    balance: float
    name: ClassVar[str] = "labels"

    def loss(self, forward: Forward) -> Tensor:
        """Return the mean cross-entropy over known labels."""
        if forward.network.label_head is None:
            raise AssertionError("the label objective needs a label head")
        cell = forward.encoded.cell.view(forward.batch.n_views, forward.batch.n_cells, -1).mean(dim=0)
        scores = forward.network.label_head(cell, self.balance)
        total, n_labels = label_cross_entropy(scores, forward.batch.labels)
        if forward.spread:  # processes have different numbers of labels
            return total * world_size() / sum_over_ranks(n_labels).clamp(min=1)
        return total / n_labels.clamp(min=1)


def build_objectives(config: ObjectiveConfig, network: CellNetwork, n_views: int) -> list[tuple[float, Objective]]:
    """Return the objectives that a recipe switches on, with their weights.

    Labels are left out where there is no label head, and contrast where there is but one view.
    """
    wanted: list[tuple[float, Objective, bool]] = [
        (config.counts, CountObjective(config.smoothing), True),
        (config.cls_counts, ClsCountObjective(config.smoothing), True),
        (config.contrastive, ContrastiveObjective(config.temperature), n_views == 2),
        (config.labels, LabelObjective(config.label_balance), network.label_head is not None),
    ]
    return [(weight, objective) for weight, objective, possible in wanted if weight > 0 and possible]


def freeze_unused(network: CellNetwork, config: ObjectiveConfig, n_views: int) -> None:
    """Freeze the heads that no objective trains: several processes would otherwise wait for their gradients."""
    if config.contrastive == 0 or n_views != 2:
        network.projection.requires_grad_(False)
    if config.counts == 0 and config.cls_counts == 0:
        network.decoder.requires_grad_(False)
    if config.labels == 0 and network.label_head is not None:
        network.label_head.requires_grad_(False)


def total_loss(terms: dict[str, Tensor], objectives: list[tuple[float, Objective]]) -> Tensor:
    """Return the weighted sum of loss terms."""
    return torch.stack([weight * terms[objective.name] for weight, objective in objectives]).sum()
