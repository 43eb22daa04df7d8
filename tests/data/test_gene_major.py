from itertools import pairwise

import h5py
import numpy as np
import pytest

from lexicell.data.readers import gene_major
from lexicell.data.readers.bands import turned
from lexicell.data.readers.gene_major import GeneMajorMatrix
from lexicell.errors import InputError

COUNTS = np.random.default_rng(0).poisson(0.4, (30, 45)).astype(np.int32)  # genes x cells


def dense(rows, n_genes):
    out = np.zeros((len(rows.indptr) - 1, n_genes), dtype=int)
    out[np.repeat(np.arange(len(out)), np.diff(rows.indptr)), rows.genes] = rows.data
    return out


@pytest.mark.parametrize("chunks", [(1, 45), (30, 1), (7, 4), (30, 45), (4, 16), None])
@pytest.mark.parametrize("width", [8, 4096])
def test_chunks_of_any_shape(tmp_path, monkeypatch, chunks, width):
    monkeypatch.setattr(gene_major, "_MAX_WIDTH", width)
    monkeypatch.setattr(gene_major, "BLOCK_ENTRIES", 100)
    with h5py.File(tmp_path / "counts.h5", "w") as file:
        matrix = GeneMajorMatrix("counts", file.create_dataset("c", data=COUNTS, chunks=chunks))
        assert (matrix.n_cells, matrix.n_genes, matrix.n_entries) == (45, 30, 45 * 30)
        assert matrix.by_cell == ((chunks or COUNTS.shape)[1] <= width)
        found = np.zeros_like(COUNTS)
        for piece in matrix.entries():
            found[piece.genes, piece.cells] = piece.values
        assert (found == COUNTS).all()
        banded = turned(matrix, tmp_path / "bands", limit=200)
        for source in [matrix, banded] if matrix.by_cell else [banded]:
            edges = source.edges(100)
            assert (edges[0], edges[-1]) == (0, 45)
            blocks = [dense(source.read(a, b), 30) for a, b in pairwise(edges)]
            assert (np.concatenate(blocks) == COUNTS.T).all()


@pytest.mark.parametrize("chunks", [(1, 45), (7, 4), (30, 45)])
def test_a_sample_is_of_the_size_asked_for_and_true(tmp_path, chunks):
    with h5py.File(tmp_path / "counts.h5", "w") as file:
        matrix = GeneMajorMatrix("counts", file.create_dataset("c", data=COUNTS, chunks=chunks))
        sample = matrix.sample(400)
        assert (COUNTS[sample.genes, sample.cells] == sample.values).all()
        assert 0 < len(sample.values) <= 500
        filled = len(sample.values) / 400
        assert filled == pytest.approx((COUNTS != 0).mean(), abs=0.15)


def test_three_dimensions_are_no_matrix(tmp_path):
    with h5py.File(tmp_path / "counts.h5", "w") as file, pytest.raises(InputError, match="expected a matrix"):
        GeneMajorMatrix("counts", file.create_dataset("c", data=COUNTS.reshape(30, 9, 5)))
