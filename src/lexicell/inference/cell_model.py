"""CellModel: a trained, frozen model with its lexicon, ready to embed cells and genes."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from huggingface_hub import ModelCard, ModelHubMixin, snapshot_download
from rich.progress import track
from scipy.sparse import csr_matrix
from torch import Tensor

from lexicell.allocator import keep_freed_memory
from lexicell.data.gene_cover import GeneCover
from lexicell.data.gene_sampler import SparseRows
from lexicell.data.query import Query
from lexicell.errors import InputError, listing
from lexicell.genes.lexicon import Lexicon
from lexicell.inference.model_card import model_card, share_run
from lexicell.labels import LabelTree
from lexicell.model.checkpoint import ModelSpec, load_model, save_model
from lexicell.model.network import CellNetwork, Encoded

CELLS_AT_ONCE = 2048  # cells whose samples are dealt together; bounds memory whatever the query's size
TOKENS_AT_ONCE = 16_384  # tokens in a forward pass


@dataclass(frozen=True)
class CellOutput:
    """What the model makes of some cells."""

    embedding: npt.NDArray[np.float32]  # (n_cells, cell width)
    probabilities: list[npt.NDArray[np.float32]]  # per label level (n_cells, n_nodes); empty without a label head


@dataclass(frozen=True, eq=False)
class DealtSamples:
    """Gene samples of some cells, for one forward pass."""

    cell: npt.NDArray[np.int64]  # (b,) row of the cell that each sample is of
    genes: npt.NDArray[np.int64]  # (b, tokens) lexicon indices
    counts: npt.NDArray[np.int64]  # (b, tokens) raw counts
    depth: npt.NDArray[np.float32]  # (b,) total counts of the cell


@dataclass(frozen=True, eq=False)
class EncodedSamples:
    """Gene samples of some cells, encoded in one forward pass."""

    cell: npt.NDArray[np.int64]  # (b,) row of the cell that each sample is of
    genes: npt.NDArray[np.int64]  # (b, tokens) lexicon indices
    counts: npt.NDArray[np.int64]  # (b, tokens) raw counts
    encoded: Encoded


class CellModel(ModelHubMixin):
    """A trained model.

    `save_pretrained`, `from_pretrained` and `push_to_hub` share it through the Hugging Face Hub or a folder.

    Parameters
    ----------
    network
        Weights; put into evaluation mode.
    spec
        What they mean: lexicon, label tree, covariates, tokens.
    device
        Where it runs; a GPU where there is one, unless said otherwise.
    run
        Folder that tells how it was trained, for its card; None if there is none.
    """

    def __init__(
        self,
        network: CellNetwork,
        spec: ModelSpec,
        device: str | torch.device | None = None,
        run: Path | None = None,
    ) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.network = network.to(self.device).eval().requires_grad_(False)
        self.spec = spec
        self._covariates = torch.zeros(len(spec.covariates), dtype=torch.long)  # level of each; 0 is unknown
        self._run = run

    @classmethod
    def load(cls, run: str | Path, device: str | torch.device | None = None) -> Self:
        """Load the model of a run folder.

        Raises
        ------
        InputError
            When the folder holds no whole model, or weights, config and lexicon do not belong together.
        """
        return cls(*load_model(Path(run)), device=device, run=Path(run))

    def save(self, folder: str | Path) -> None:
        """Write the model into a folder."""
        save_model(Path(folder), self.network, self.spec)

    def _save_pretrained(self, save_directory: Path) -> None:
        """Write the model, and what its run folder tells of it, into a folder to be shared."""
        self.save(save_directory)
        share_run(self._run, save_directory)

    @classmethod
    def _from_pretrained(cls, *, model_id: str, device: str | torch.device | None = None, **download: Any) -> Self:
        """Load a shared model from a folder, or from the Hub by its name there."""
        folder = model_id if Path(model_id).is_dir() else snapshot_download(model_id, **download)
        return cls.load(folder, device)

    def generate_model_card(self, **facts: Any) -> ModelCard:
        """Return the card; for `facts` (``name``, ``licence``, ``licences``, ``authors``) see `model_card`."""
        return model_card(self.spec, self._run, **facts)

    @property
    def lexicon(self) -> Lexicon:
        """The genes it knows."""
        return self.spec.lexicon

    @property
    def label_tree(self) -> LabelTree | None:
        """Labels of its label head, if it was trained with one."""
        return self.spec.label_tree

    @property
    def width(self) -> int:
        """Numbers in a gene's embedding, and in a token's state."""
        return self.spec.config.encoder.width

    @property
    def cell_width(self) -> int:
        """Numbers in a cell's embedding: CLS as the trunk leaves it, then the bag of the cell's genes."""
        return self.spec.config.cell_width

    @property
    def cell_parts(self) -> tuple[int, int]:
        """Widths of the two parts of a cell's embedding: CLS and the bag."""
        return self.spec.config.cell_parts

    def given(self, **covariates: str) -> Self:
        """Return the same model (weights are shared), told covariates of the cells that it will see.

        Unless told, it does without, as it learned to. Tell it what holds for reference and query alike, such as
        ``model.given(tissue="cortex")``.

        Raises
        ------
        InputError
            When the model was not trained with a covariate, or not with that value.
        """
        told = copy.copy(self)
        told._covariates = self._covariates.clone()
        for name, value in covariates.items():
            if name not in self.spec.covariates:
                raise InputError(
                    f"this model was not trained with the covariate '{name}'; it has {listing(self.spec.covariates)}"
                )
            levels = self.spec.covariates[name]
            if value not in levels:
                raise InputError(f"covariate {name}: the model does not know '{value}', but {listing(levels, 20)}")
            told._covariates[list(self.spec.covariates).index(name)] = levels.index(value) + 1
        return told

    def trained_on(self, network: CellNetwork, label_tree: LabelTree) -> Self:
        """Return the model with other weights and a head for these labels, told the same covariates."""
        tuned = copy.copy(self)
        tuned.network = network.to(self.device).eval().requires_grad_(False)
        tuned.spec = replace(self.spec, label_tree=label_tree)
        tuned._run = None
        return tuned

    def embed(
        self,
        query: Query,
        *,
        samples: int | None = None,
        batch_size: int | None = None,
        progress: bool = False,
    ) -> npt.NDArray[np.float32]:
        """Return cell embeddings, (n_cells, cell width); see `run`."""
        return self.run(query, samples=samples, batch_size=batch_size, progress=progress).embedding

    def predict_labels(
        self,
        query: Query,
        *,
        samples: int | None = None,
        batch_size: int | None = None,
        progress: bool = False,
    ) -> list[npt.NDArray[np.float32]]:
        """Return the label head's probabilities, per level (n_cells, n_nodes); see `run`.

        Raises
        ------
        InputError
            When the model was trained without labels.
        """
        if self.label_tree is None:
            raise InputError(
                "this model has no label head: its stores carried no labels, or objectives.labels was 0; "
                "use --method knn"
            )
        return self.run(query, samples=samples, batch_size=batch_size, progress=progress).probabilities

    @torch.inference_mode()
    def run(
        self,
        query: Query,
        *,
        samples: int | None = None,
        batch_size: int | None = None,
        progress: bool = False,
    ) -> CellOutput:
        """Embed cells, and classify them where there is a label head.

        A cell is shown in samples of as many genes as in training, which together show every expressed gene;
        the embedding is the mean over them, and labels are read from it. A cell's result depends on that cell alone.

        Parameters
        ----------
        query
            Cells, from `lexicell.data.query.read_query`.
        samples
            At most so many samples a cell: faster, but not every expressed gene is seen.
        batch_size
            Samples in a forward pass.
        progress
            Show a progress bar.
        """
        if self.device.type == "cpu":
            keep_freed_memory()
        per_pass = batch_size or max(1, TOKENS_AT_ONCE // self.spec.tokens)
        cover = self._cover(query, samples)
        n_cells = query.counts.shape[0]
        starts = range(0, n_cells, CELLS_AT_ONCE)
        outputs = [
            self._run_chunk(query.counts[start : start + CELLS_AT_ONCE], query.gene_index, cover, per_pass)
            for start in track(starts, description="embedding", disable=not progress)
        ]
        levels = len(outputs[0].probabilities) if outputs else 0
        return CellOutput(
            np.concatenate([out.embedding for out in outputs]),
            [np.concatenate([out.probabilities[level] for out in outputs]) for level in range(levels)],
        )

    def _cover(self, query: Query, samples: int | None) -> GeneCover:
        panel = np.unique(query.gene_index[query.gene_index >= 0])
        if not len(panel):
            raise InputError(
                "none of the query's genes is in the model's lexicon; check the species and which column holds gene ids"
            )
        return GeneCover(panel, len(self.lexicon), self.spec.tokens, self.spec.silent_share, samples)

    def _run_chunk(
        self, counts: csr_matrix, gene_index: npt.NDArray[np.int64], cover: GeneCover, per_pass: int
    ) -> CellOutput:
        embedding = np.zeros((counts.shape[0], self.cell_width), np.float32)
        n_samples = np.zeros((counts.shape[0], 1), np.float32)
        for part in self._passes(counts, gene_index, cover, per_pass):
            np.add.at(embedding, part.cell, part.encoded.cell.float().cpu().numpy())
            np.add.at(n_samples, part.cell, np.float32(1))
        embedding /= n_samples
        head = self.network.label_head
        if head is None:
            return CellOutput(embedding, [])
        paths = head.path_log_probabilities(torch.from_numpy(embedding).to(self.device))
        return CellOutput(embedding, [path.exp().cpu().numpy() for path in paths])

    def _passes(
        self, counts: csr_matrix, gene_index: npt.NDArray[np.int64], cover: GeneCover, per_pass: int
    ) -> Iterator[EncodedSamples]:
        for part in self._deals(counts, gene_index, cover, per_pass):
            encoded = self.network.encode(*self.tensors(part.genes, part.counts, part.depth))
            yield EncodedSamples(part.cell, part.genes, part.counts, encoded)

    @staticmethod
    def _deals(
        counts: csr_matrix, gene_index: npt.NDArray[np.int64], cover: GeneCover, per_pass: int
    ) -> Iterator[DealtSamples]:
        rows = _known_rows(counts, gene_index)
        depth = np.zeros(len(rows.begin), np.float32)
        np.add.at(depth, np.repeat(np.arange(len(depth)), rows.end - rows.begin), rows.counts.astype(np.float32))
        dealt = cover.deal(rows)
        for part in _parts(len(dealt.cell), per_pass):
            cell = dealt.cell[part]
            yield DealtSamples(cell, dealt.genes[part], dealt.counts[part], depth[cell])

    def dealt_samples(
        self, query: Query, *, samples: int | None = None, batch_size: int | None = None
    ) -> Iterator[DealtSamples]:
        """Yield the gene samples of cells that `run` would encode, not encoded; see `run` for the parameters."""
        per_pass = batch_size or max(1, TOKENS_AT_ONCE // self.spec.tokens)
        cover = self._cover(query, samples)
        for start in range(0, query.n_cells, CELLS_AT_ONCE):
            chunk = query.counts[start : start + CELLS_AT_ONCE]
            for part in self._deals(chunk, query.gene_index, cover, per_pass):
                yield replace(part, cell=part.cell + start)

    @torch.inference_mode()
    def encoded_samples(
        self, query: Query, *, samples: int | None = None, batch_size: int | None = None
    ) -> Iterator[EncodedSamples]:
        """Yield the encoded gene samples of cells, a forward pass at a time; see `run` for the parameters."""
        if self.device.type == "cpu":
            keep_freed_memory()
        per_pass = batch_size or max(1, TOKENS_AT_ONCE // self.spec.tokens)
        cover = self._cover(query, samples)
        for start in range(0, query.n_cells, CELLS_AT_ONCE):
            chunk = query.counts[start : start + CELLS_AT_ONCE]
            for part in self._passes(chunk, query.gene_index, cover, per_pass):
                yield replace(part, cell=part.cell + start)

    def tensors(
        self, genes: npt.NDArray[np.int64], counts: npt.NDArray[np.int64], depth: npt.NDArray[np.float32]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return what `CellNetwork.encode` takes, on the model's device: with the covariates that it was told."""
        told = self._covariates.expand(len(depth), -1)
        arrays = (torch.from_numpy(genes), torch.from_numpy(counts), torch.from_numpy(depth), told)
        first, second, third, fourth = (array.to(self.device) for array in arrays)
        return first, second, third, fourth

    def gene_table(self) -> pd.DataFrame:
        """Return the static gene embeddings: species, gene_id, symbol, and columns ``e0`` ... of the row."""
        weight: Tensor = self.network.genes.weight.detach()
        rows = pd.DataFrame(weight.float().cpu().numpy(), columns=[f"e{i}" for i in range(self.width)])
        return pd.concat([self.lexicon.table.reset_index(drop=True), rows], axis=1)


def _parts(n: int, size: int) -> Iterator[slice]:
    for start in range(0, n, size):
        yield slice(start, start + size)


def _known_rows(counts: csr_matrix, gene_index: npt.NDArray[np.int64]) -> SparseRows:
    """Return cells' counts in lexicon indices; genes that the lexicon lacks are left out."""
    known = csr_matrix(counts)[:, gene_index >= 0]
    known.eliminate_zeros()
    indptr = known.indptr.astype(np.int64)
    genes = gene_index[gene_index >= 0][known.indices]
    return SparseRows(indptr[:-1], indptr[1:], genes, known.data.astype(np.int64))
