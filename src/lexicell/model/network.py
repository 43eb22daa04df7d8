"""CellNetwork: embeddings, trunk and heads put together, and the one place where weights are initialised."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from lexicell.labels import LabelTree
from lexicell.model.counts import CountClasses, CountConfig
from lexicell.model.embedding import CovariateEmbedding, GeneBag, GeneEmbedding
from lexicell.model.encoder import Encoder, EncoderConfig
from lexicell.model.heads import CountDecoder, LabelHead, Projection


@dataclass(frozen=True)
class ModelConfig:
    """Architecture."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """The trunk."""
    counts: CountConfig = field(default_factory=CountConfig)
    """Classes of raw counts."""
    decoder_layers: int = 1
    """Cross-attention blocks of the count decoder."""
    projection: int = 64
    """Numbers in the contrastive projection."""

    @property
    def cell_parts(self) -> tuple[int, int]:
        """Numbers that stand for a cell: CLS, and the bag of its genes."""
        return self.encoder.width, self.encoder.width

    @property
    def cell_width(self) -> int:
        """Numbers that stand for a cell, in all."""
        return sum(self.cell_parts)


@dataclass(frozen=True)
class Encoded:
    """An encoded cell."""

    context: Tensor  # (b, 1 + l, width): CLS and tokens
    bag: Tensor  # (b, width): the sum of its genes, as it entered CLS

    @property
    def cls(self) -> Tensor:
        """What the trunk makes of the cell, (b, width)."""
        return self.context[:, 0]

    @property
    def cell(self) -> Tensor:
        """The cell, (b, 2 * width): CLS and, beside it, the bag.

        The trunk writes its own into CLS over what the bag brought there; so what the bag tells is kept.
        """
        return torch.cat([self.cls, self.bag], dim=-1)

    @property
    def tokens(self) -> Tensor:
        """Its genes in the order given, (b, l, width)."""
        return self.context[:, 1:]


class CellNetwork(nn.Module):
    """The network that is trained.

    Parameters
    ----------
    config
        Architecture.
    n_genes
        Size of the lexicon.
    covariate_sizes
        Number of levels of each covariate.
    label_tree
        Tree for the label head; None for no head.

    Attributes
    ----------
    marginal
        (n_genes, n_classes) log-probability of each gene's count classes whatever the cell. The decoder's logits are
        added to it: they learn in what a cell differs. Zeros where they learned all.
    typical_depth
        Median total counts of the training cells.
    """

    marginal: Tensor
    typical_depth: Tensor

    def __init__(
        self,
        config: ModelConfig,
        n_genes: int,
        covariate_sizes: Sequence[int] = (),
        label_tree: LabelTree | None = None,
    ) -> None:
        super().__init__()
        encoder = config.encoder
        self.config = config
        self.count_classes = CountClasses(config.counts)
        self.genes = GeneEmbedding(n_genes, encoder.width)
        self.counts = nn.Embedding(self.count_classes.n_classes, encoder.width)
        self.cls = nn.Parameter(torch.empty(encoder.width))
        self.bag = GeneBag(n_genes, encoder.width)
        self.covariates = CovariateEmbedding(covariate_sizes, encoder.width)
        self.encoder = Encoder(encoder)
        self.decoder = CountDecoder(
            encoder.width,
            encoder.heads,
            config.decoder_layers,
            encoder.mlp_ratio,
            self.count_classes.n_classes,
        )
        self.register_buffer("marginal", torch.zeros(n_genes, self.count_classes.n_classes))
        self.register_buffer("typical_depth", torch.tensor(1e4))
        self.projection = Projection(config.cell_width, encoder.width, config.projection)
        self.label_head = LabelHead(config.cell_width, label_tree) if label_tree else None

    def encode(self, genes: Tensor, counts: Tensor, depth: Tensor, covariates: Tensor) -> Encoded:
        """Encode cells.

        Parameters
        ----------
        genes, counts
            (b, l) lexicon indices and raw counts of the tokens.
        depth
            (b,) total counts, which scale counts in the bag and are told to nothing else: see `DepthEmbedding`.
        covariates
            (b, c) covariate levels, 0 for unknown.
        """
        weights = self.bag.weights(genes, counts, depth)
        return self.read(self.genes(genes), self.counts(self.count_classes(counts)), weights, covariates)

    def read(self, rows: Tensor, counted: Tensor, weights: Tensor, covariates: Tensor) -> Encoded:
        """Encode cells whose genes and counts were looked up before.

        Parameters
        ----------
        rows, counted
            (b, l, width) embeddings of the tokens' genes, and of their count classes.
        weights
            (b, l) weight of each gene in the bag.
        covariates
            As of `encode`.
        """
        bag = self.bag.read(weights, rows)
        return Encoded(self.encoder(self.inputs(rows, counted, bag, covariates)), bag)

    def inputs(self, rows: Tensor, counted: Tensor, bag: Tensor, covariates: Tensor) -> Tensor:
        """Return what the trunk reads, CLS and tokens, (b, 1 + l, width); for the parameters see `read`."""
        cls = self.cls + self.covariates(covariates) + bag
        return torch.cat([cls.unsqueeze(1), rows + counted], dim=1)

    def count_logits(
        self, query_genes: Tensor, context: Tensor, depth: Tensor | None = None, rows: Tensor | None = None
    ) -> Tensor:
        """Return logits of the raw count of genes, were the cells sequenced to some depth.

        Parameters
        ----------
        query_genes
            (b, q) lexicon indices.
        context
            (v * b, m, width) what is known of the cells, perhaps in ``v`` views, stacked.
        depth
            (b,) total counts; by default the typical depth.
        rows
            (b, q, width) embeddings of the genes, where they were looked up before.

        Returns
        -------
        Tensor
            (v * b, q, n_classes)
        """
        depth = self.typical_depth.expand(len(query_genes)) if depth is None else depth
        differs = self.decoder(self.genes(query_genes) if rows is None else rows, depth, context)
        logits: Tensor = (differs.unflatten(0, (-1, len(query_genes))) + self.marginal[query_genes]).flatten(0, 1)
        return logits

    @torch.no_grad()
    def initialise(
        self,
        generator: torch.Generator,
        gene_rows: Tensor | None = None,
        usual: Tensor | None = None,
        marginal: Tensor | None = None,
        typical_depth: float | None = None,
    ) -> None:
        """Set all weights.

        Matrices are normal with standard deviation 1 / sqrt(inputs); those that write to the residual stream
        start at zero, so that each block begins as the identity; embeddings are of unit length, norms are one.

        Parameters
        ----------
        generator
            Draws the weights.
        gene_rows
            (n_genes, width) gene embeddings to begin with, instead of drawn ones.
        usual
            (n_genes,) mean log(1 + counts per 10,000) of each gene; 0 unless given.
        marginal
            (n_genes, n_classes) log-probability of each gene's count classes; 0 unless given.
        typical_depth
            Median total counts of the training cells; 10,000 unless given.
        """
        writers = (
            "decoder.depth.out.weight",
            "attention.out.weight",
            "down.weight",
            "classifier.weight",
            "label_head.out.weight",
        )
        for name, parameter in self.named_parameters():
            if name.endswith("norm.weight"):
                parameter.fill_(1.0)
            elif name.endswith(("bias", *writers)):
                parameter.zero_()
            else:  # matrices have their inputs in the last dimension; so have embeddings their width
                parameter.normal_(0.0, 1 / math.sqrt(parameter.shape[-1]), generator=generator)
        if gene_rows is not None:
            self.genes.rows.copy_(gene_rows)
        if usual is not None:
            self.bag.usual.copy_(usual)
        if marginal is not None:
            self.marginal.copy_(marginal)
        if typical_depth is not None:
            self.typical_depth.fill_(typical_depth)

    def extend(self, new_rows: Tensor, usual: Tensor, marginal: Tensor, covariate_sizes: Sequence[int]) -> None:
        """Grow by genes and covariate levels; a cell of the old genes and levels is encoded as before.

        Parameters
        ----------
        new_rows
            (n_new, width) embeddings of the new genes.
        usual
            (n_new,) mean log(1 + counts per 10,000) of the new genes.
        marginal
            (n_new, n_classes) log-probability of the new genes' count classes.
        covariate_sizes
            Number of levels of each covariate, the old ones first; old levels come first in each.
        """
        self.genes.extend(new_rows)
        self.bag.extend(usual)
        self.marginal = torch.cat([self.marginal, marginal.to(self.marginal)])
        self.covariates.extend(covariate_sizes)

    def freeze_old(self, n_genes: int, covariate_sizes: Sequence[int]) -> None:
        """Let nothing move but the genes and covariate levels beyond these numbers of old ones.

        Parameters
        ----------
        n_genes
            Genes whose rows stand still, from the first.
        covariate_sizes
            For each covariate the levels that stand still, from the first; so does the unknown level.
        """
        self.requires_grad_(False)
        self.genes.freeze(n_genes)
        for table, n_old in zip(self.covariates.tables, covariate_sizes, strict=True):
            table.freeze(n_old + 1)  # type: ignore[operator]

    def unfreeze(self) -> None:
        """Let every weight move again."""
        self.requires_grad_(True)
        self.genes.freeze(0)
        for table in self.covariates.tables:
            table.freeze(0)  # type: ignore[operator]

    def n_parameters(self) -> dict[str, int]:
        """Return the number of parameters of each part, and in all."""
        parts = {name: sum(p.numel() for p in part.parameters()) for name, part in self.named_children()}
        parts = {name: n for name, n in parts.items() if n}
        return parts | {"total": sum(p.numel() for p in self.parameters())}
