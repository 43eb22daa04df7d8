"""Gene embeddings to begin with, from the training cells: what a gene's counts look like, and which genes it follows.

Two parts are laid into the embedding along random orthogonal directions, beside some noise:

- the expression profile: mean, detection, spread, mean where expressed, and maximum of log-CPM, as ranks within the
  species. Its directions are the same for all species, so that genes of alike profile begin alike (no homology used).
- co-expression: correlation with the principal components of log-CPM, of cells compared within their study, so that
  components tell of cells and not of who sequenced them. Its directions are each species' own.

A short run then has its steps for what counts alone do not tell; see the experiments in LOG.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csc_matrix, csr_matrix
from scipy.sparse.linalg import LinearOperator, svds
from scipy.stats import rankdata

from lexicell.data.cells import CellCollection
from lexicell.randomness import generator

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]

N_FEATURES = 5
MAX_CELLS = 20_000  # cells of a species that are looked at
TOLERANCE = 1e-2  # of the components' variances: only a beginning is wanted
COMPONENTS = 64  # of co-expression, where width and cells allow it
CELLS_A_COMPONENT = 25  # for more components than a third of the width; of few cells, further ones are noise
CLIP = 10.0  # standard deviations, as in a usual PCA of scaled log-CPM


@dataclass(frozen=True)
class GeneRowConfig:
    """Size of the parts of a gene's first embedding; a drawn embedding has length 1."""

    profile: float = 0.2
    """Length of the expression profile's part, of an average gene."""
    coexpression: float = 2.0
    """Length of the co-expression part, of a gene that the principal components explain wholly."""
    noise: float = 0.05
    """Length of the random part."""
    marginal: bool = True
    """Whether the count decoder begins from each gene's own distribution of counts, and learns in what cells differ."""


@dataclass(frozen=True, eq=False)
class GeneStart:
    """What genes begin with."""

    rows: Float32  # (n_genes, width) embeddings; genes that no training cell measured are noise alone
    usual: Float32  # (n_genes,) mean log(1 + counts per 10,000); 0 where no training cell measured the gene


def start_genes(collection: CellCollection, cells: Int64, width: int, config: GeneRowConfig, seed: int) -> GeneStart:
    """Return first gene embeddings, and what counts are usual.

    Parameters
    ----------
    collection, cells
        All cells, and those to train on.
    width
        Numbers in an embedding.
    config
        Size of the parts.
    seed
        Names the directions, the noise, and which cells are looked at.
    """
    lexicon = collection.lexicon
    n_components = min(2 * width // 3, width - N_FEATURES, COMPONENTS)
    rng = generator(seed, "gene rows")
    noise = rng.standard_normal((len(lexicon), width)) / np.sqrt(width)
    rows, usual = config.noise * noise, np.zeros(len(lexicon), np.float32)
    shared = _directions(rng, width, N_FEATURES)
    sources = collection.coded("source").codes
    for species in lexicon.species:
        genes = lexicon.rows_of(species)
        own = cells_of_genes(collection, cells, genes, rng)
        if len(own) < 2:
            continue
        pairs = np.stack([sources[own], collection.panel[own]])
        studies, study = np.unique(pairs, axis=1, return_inverse=True)
        panels = [collection.panels[panel] for panel in studies[1]]
        measured = np.unique(np.concatenate(panels))
        expression = log_cpm(collection, own, measured)
        usual[measured] = np.asarray(expression.mean(axis=0)).ravel()
        rows[measured] += config.profile * _profile(expression) / np.sqrt(N_FEATURES) @ shared.T
        known = np.stack([np.isin(measured, panel) for panel in panels])
        enough = max(width // 3, len(own) // CELLS_A_COMPONENT)
        correlation = _coexpression(expression, study.ravel(), known, min(n_components, enough), rng)
        free = _directions(rng, width, correlation.shape[1], beside=shared)
        rows[measured] += config.coexpression * correlation @ free.T
    return GeneStart(rows.astype(np.float32), usual)


def _directions(rng: np.random.Generator, width: int, n: int, beside: Float32 | None = None) -> Float32:
    """Return ``n`` random orthonormal directions (width, n), orthogonal to those of ``beside``."""
    drawn = rng.standard_normal((width, n))
    if beside is not None:
        drawn = np.concatenate([beside, drawn], axis=1)
    basis: Float32 = np.linalg.qr(drawn)[0][:, drawn.shape[1] - n :].astype(np.float32)
    return basis


def cells_of_genes(
    collection: CellCollection, cells: Int64, genes: Int64, rng: np.random.Generator, *, labelled: bool = False
) -> Int64:
    """Return training cells whose panel is of a species, at most `MAX_CELLS`; with labels before without, if asked."""
    of_species = [p for p, panel in enumerate(collection.panels) if len(panel) and np.isin(panel[0], genes)]
    own = rng.permutation(cells[np.isin(collection.panel[cells], of_species)])
    if labelled:
        own = own[np.argsort((collection.labels[own] < 0).all(axis=1), kind="stable")]
    return np.sort(own[:MAX_CELLS])


def log_cpm(collection: CellCollection, cells: Int64, genes: Int64) -> csc_matrix:
    """Return log(1 + counts per 10,000) of some genes, (n_cells, n_genes)."""
    rows = collection.rows(cells)
    order = np.argsort(rows.begin, kind="stable")
    lengths = (rows.end - rows.begin)[order]
    depth = np.maximum(collection.depth[cells][order], 1)
    values = np.log1p(rows.counts.astype(np.int32) * np.repeat(1e4 / depth, lengths)).astype(np.float32)
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    return csr_matrix((values, rows.genes, indptr), shape=(len(cells), len(collection.lexicon))).tocsc()[:, genes]


def _profile(expression: csc_matrix) -> npt.NDArray[np.float64]:
    """Return uncorrelated features of unit variance, (n_genes, N_FEATURES), from ranks of expression statistics."""
    n_cells = expression.shape[0]
    mean = np.asarray(expression.mean(axis=0)).ravel()
    detection = np.diff(expression.indptr) / n_cells
    spread = np.sqrt(np.maximum(np.asarray(expression.multiply(expression).mean(axis=0)).ravel() - mean**2, 0))
    if_expressed = mean / np.maximum(detection, 1 / n_cells)
    highest = expression.max(axis=0).toarray().ravel()
    features = np.stack([mean, detection, spread, if_expressed, highest], axis=1)
    ranks = rankdata(features, axis=0) / len(features)
    ranks -= ranks.mean(axis=0)
    # Symmetric (ZCA) whitening: unlike principal components it turns and flips nothing, so that species agree.
    values, vectors = np.linalg.eigh(ranks.T @ ranks / len(ranks))
    scale = np.where(values > 1e-6 * values.max(), 1 / np.sqrt(np.maximum(values, 1e-12)), 0.0)
    whitened: npt.NDArray[np.float64] = ranks @ (vectors * scale) @ vectors.T
    return whitened


def _coexpression(
    expression: csc_matrix, study: Int64, known: npt.NDArray[np.bool_], n_components: int, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Return each gene's correlation with the principal components of scaled log-CPM, (n_genes, n).

    Cells are centred within their study, and a study weighs as the root of its cells. A gene is scaled by its spread
    within the studies that measured it; in the others it is at its mean.

    Parameters
    ----------
    expression
        (n_cells, n_genes) log-CPM.
    study
        (n_cells,) the study of each cell.
    known
        (n_studies, n_genes) whether a study measured a gene.
    """
    n_cells, n_genes = expression.shape
    n_components = min(n_components, n_cells // 2, n_genes // 2)
    if n_components < 1:
        return np.zeros((n_genes, 0))
    size = np.bincount(study)
    weight = np.sqrt(size) / np.sqrt(size).sum()
    average = csr_matrix((1 / size[study], study, np.arange(n_cells + 1)), shape=(n_cells, len(size))).T.tocsr()
    values = expression.tocsr().astype(np.float32)
    mean = average @ values
    variance = (weight @ (average @ values.multiply(values)) - weight @ mean.multiply(mean)) / (weight @ known)
    scale = np.maximum(np.sqrt(np.maximum(variance, 0)), 1e-2)
    values.data = np.minimum(values.data / scale[values.indices], CLIP).astype(np.float32)
    mean = (average @ values).astype(np.float32)
    root = np.sqrt((weight / size)[study]).astype(np.float32)
    by_gene, mean_by_gene = values.T.tocsr(), mean.T.tocsr()

    def of_cells(x: Float32) -> Float32:
        x = x.ravel().astype(np.float32)
        return np.asarray(root * (values @ x - (mean @ x)[study]))

    def of_genes(y: Float32) -> Float32:
        y = root * y.ravel().astype(np.float32)
        return np.asarray(by_gene @ y - mean_by_gene @ np.bincount(study, y).astype(np.float32))

    centred = LinearOperator((n_cells, n_genes), matvec=of_cells, rmatvec=of_genes, dtype=np.float32)
    begin = rng.standard_normal(min(n_cells, n_genes)).astype(np.float32)
    _, deviation, directions = svds(centred, n_components, v0=begin, tol=TOLERANCE)
    loadings: npt.NDArray[np.float64] = (directions.T * deviation)[:, ::-1].astype(np.float64)
    return loadings
