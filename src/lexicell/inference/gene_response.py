"""What a model expects of every gene in some cells: the gene's response, read from the count decoder."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from rich.progress import track

from lexicell.inference.cell_model import CellModel

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

_PAIRS_AT_ONCE = 16_384  # (cell, gene) pairs in a pass of the decoder


@torch.inference_mode()
def count_response(model: CellModel, embedding: Float32, genes: Int64, *, progress: bool = False) -> Float32:
    """Return the expected log count of genes in cells, asked of the decoder from the cells' embeddings alone.

    All cells are asked as if they were sequenced to the training cells' median depth, so that responses compare.

    Parameters
    ----------
    model
        A trained model.
    embedding
        (n_cells, cell width) cell embeddings, or means of them; the decoder reads the CLS part.
    genes
        (n_genes,) lexicon indices.
    progress
        Show a progress bar.

    Returns
    -------
    ndarray of float32, (n_genes, n_cells)
        Expectation of log(1 + raw count) under the predicted distribution of count classes.
    """
    network = model.network
    values = torch.log1p(network.count_classes.centres()).to(model.device)
    contexts = (
        torch.from_numpy(np.ascontiguousarray(embedding[:, : model.width], dtype=np.float32))
        .to(model.device)
        .unsqueeze(1)
    )
    index = torch.from_numpy(np.array(genes)).to(model.device)  # a copy: a lexicon's own rows are read-only
    out = np.empty((len(genes), len(embedding)), np.float32)
    at_once = max(1, _PAIRS_AT_ONCE // max(len(embedding), 1))
    for start in track(range(0, len(genes), at_once), description="asking for counts", disable=not progress):
        asked = index[start : start + at_once].unsqueeze(0).expand(len(embedding), -1)
        chances = network.count_logits(asked, contexts).float().softmax(dim=-1)
        out[start : start + at_once] = (chances @ values).T.cpu().numpy()
    return out
