"""How much arithmetic a step is: every matrix product and every attention of the network, by its shape.

Only what grows with a matrix is counted; norms, activations, gathers and losses are not. A multiplication with its
addition counts as two operations, as everybody does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lexicell.model.encoder import hidden_width
from lexicell.model.network import ModelConfig

EMBEDDING, ENCODER, DECODER, HEADS = "embedding", "encoder", "decoder", "heads"


@dataclass(frozen=True)
class StepShape:
    """What one training step works on."""

    cells: int
    """Cells in the batch."""
    tokens: int
    """Genes that a view shows; CLS comes on top."""
    queries: int
    """Genes that each cell is asked for."""
    views: int = 2
    """Views of each cell."""
    n_classes: int = 35
    """Count classes."""
    n_labels: int = 0
    """Nodes of the label tree over all levels; 0 without a label head."""
    counts: bool = True
    """Whether counts are decoded from all tokens."""
    cls_counts: bool = True
    """Whether they are decoded from CLS alone."""
    contrastive: bool = True
    """Whether views are contrasted."""


@dataclass(frozen=True)
class Product:
    """A matrix product: ``n`` of them, each (rows, inputs) @ (inputs, outputs)."""

    part: str
    rows: int
    inputs: int
    outputs: int
    n: int = 1
    batch: int = 1
    """Products that are one call."""
    gradients: int = 2
    """Products of the same size in the backward pass: for the weights and for the input."""

    @property
    def forward(self) -> int:
        """Operations in the forward pass."""
        return 2 * self.n * self.batch * self.rows * self.inputs * self.outputs

    @property
    def backward(self) -> int:
        """Operations in the backward pass."""
        return self.gradients * self.forward


@dataclass(frozen=True)
class AttentionCall:
    """``n`` calls of attention: (cells, heads, queries, width) on (cells, heads, keys, width)."""

    part: str
    cells: int
    heads: int
    queries: int
    keys: int
    width: int
    n: int = 1

    @property
    def forward(self) -> int:
        """Operations in the forward pass: products with keys and with values."""
        return 4 * self.n * self.cells * self.heads * self.queries * self.keys * self.width

    @property
    def backward(self) -> int:
        """Operations that the gradients need; flash attention does half of `forward` again, which is not counted."""
        return 2 * self.forward


Operation = Product | AttentionCall


def step_operations(config: ModelConfig, shape: StepShape) -> tuple[Operation, ...]:
    """Return all matrix products and attentions of a training step, forwards; each knows its own gradients'."""
    width = config.encoder.width
    in_views = shape.cells * shape.views
    operations: list[Operation] = [
        Product(EMBEDDING, in_views, width, width),  # the bag's way out
        Product(EMBEDDING, 1, shape.tokens, width, batch=in_views, gradients=1),  # the bag: its weights have none
    ]
    length = shape.tokens + 1
    layer = _block(config, ENCODER, in_views, shape.cells * shape.views * length, length, length)
    operations += [_times(operation, config.encoder.layers) for operation in layer]
    for wanted, context in ((shape.counts, length), (shape.cls_counts, 1)):
        if wanted:
            operations += _decoder(config, shape, context)
    if shape.contrastive and shape.views == 2:
        operations.append(Product(HEADS, in_views, config.cell_width, width))
        operations.append(Product(HEADS, in_views, width, config.projection))
        operations += _depth(HEADS, in_views, config.projection)
        operations.append(Product(HEADS, shape.cells, 2 * config.projection, shape.cells, n=2))  # either view's cells
    if shape.n_labels:
        operations.append(Product(HEADS, shape.cells, config.cell_width, shape.n_labels))
    return tuple(operations)


def forward_flops(operations: Iterable[Operation]) -> int:
    """Return the operations of the forward pass."""
    return sum(operation.forward for operation in operations)


def training_flops(operations: Iterable[Operation]) -> int:
    """Return the operations of a training step: forward and backward, nothing counted that is computed again."""
    return sum(operation.forward + operation.backward for operation in operations)


def flops_by_part(operations: Iterable[Operation]) -> dict[str, int]:
    """Return the operations of a training step by part of the network."""
    parts = dict.fromkeys((EMBEDDING, ENCODER, DECODER, HEADS), 0)
    for operation in operations:
        parts[operation.part] += operation.forward + operation.backward
    return parts


def _block(
    config: ModelConfig, part: str, cells: int, rows: int, queries: int, keys: int, *, projected: int | None = None
) -> list[Operation]:
    """Return one block of `rows` tokens; `projected` of them are turned into queries (all, unless told)."""
    encoder = config.encoder
    width, hidden = encoder.width, hidden_width(encoder.width, encoder.mlp_ratio)
    attention: list[Operation]
    if keys == 1:  # attention to one token is that token's value
        attention = [Product(part, cells, width, width, n=2)]
    else:
        attention = [
            Product(part, rows if projected is None else projected, width, width),
            Product(part, cells * keys, width, width, n=2),
            AttentionCall(part, cells, encoder.heads, queries, keys, width // encoder.heads),
            Product(part, rows, width, width),
        ]
    return [*attention, Product(part, rows, width, hidden, n=2), Product(part, rows, hidden, width)]


def _decoder(config: ModelConfig, shape: StepShape, context: int) -> list[Operation]:
    width, in_views = config.encoder.width, shape.cells * shape.views
    asked, rows = shape.cells * shape.queries, shape.cells * shape.views * shape.queries
    operations: list[Operation] = [Product(DECODER, asked, width, width), *_depth(DECODER, shape.cells, width)]
    for layer in range(config.decoder_layers):
        projected = asked if layer == 0 else rows  # before the first block all views ask alike
        operations += _block(config, DECODER, in_views, rows, shape.queries, context, projected=projected)
    return [*operations, Product(DECODER, rows, width, shape.n_classes)]


def _depth(part: str, cells: int, width: int) -> list[Operation]:
    """Return the embedding of cells' depths, whose input has no gradient."""
    return [Product(part, cells, 2, width, gradients=1), Product(part, cells, width, width)]


def _times(operation: Operation, n: int) -> Operation:
    return type(operation)(**{**operation.__dict__, "n": operation.n * n})
