"""Expression profiles of genes: what a gene's counts look like in its species, as ranks, so that species compare.

No homology enters. A gene that is high, or rarely seen but then strongly, in one species is often so in another; that
is weak evidence for one gene and good enough to begin with.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.sparse import csc_matrix
from scipy.stats import rankdata

Float64 = npt.NDArray[np.float64]

UPPER_QUANTILES = (0.9, 0.97, 0.99)


def expression_profile(expression: csc_matrix) -> Float64:
    """Return rank features of every gene: mean, detection, spread, upper quantiles, maximum.

    Parameters
    ----------
    expression
        log(1 + counts per 10,000) of one species, (n_cells, n_genes), no negative numbers.

    Returns
    -------
    ndarray, (n_genes, 7)
        Ranks among the genes given, from 0 to 1; ties share their mean rank.
    """
    matrix = csc_matrix(expression)
    n_cells, n_genes = matrix.shape
    mean = np.asarray(matrix.mean(axis=0)).ravel()
    detection = np.diff(matrix.indptr) / max(n_cells, 1)
    spread = np.sqrt(np.maximum(np.asarray(matrix.multiply(matrix).mean(axis=0)).ravel() - mean**2, 0))
    upper = np.zeros((n_genes, len(UPPER_QUANTILES) + 1))
    places = [min(n_cells - 1, int(q * n_cells)) for q in (*UPPER_QUANTILES, 1.0)]
    for gene in range(n_genes):
        values = np.sort(matrix.data[matrix.indptr[gene] : matrix.indptr[gene + 1]])
        n_zeros = n_cells - len(values)
        upper[gene] = [values[place - n_zeros] if place >= n_zeros else 0.0 for place in places]
    # The upper quantiles of rarely seen genes are 0: their places go to the mean, or thousands would tie.
    upper = np.where(upper > 0, upper + mean.max(initial=0.0), mean[:, None])
    features = np.column_stack([mean, detection, spread, upper])
    ranks: Float64 = (rankdata(features, axis=0) - 0.5) / max(n_genes, 1)
    return ranks
