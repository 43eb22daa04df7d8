from __future__ import annotations

import numpy as np
import pytest

from lexicell.data.gene_cover import GeneCover
from lexicell.data.gene_sampler import SparseRows

N_GENES = 200


def rows_of(cells: list[dict[int, int]]) -> SparseRows:
    ends = np.cumsum([len(cell) for cell in cells])
    genes = np.array([gene for cell in cells for gene in cell], np.int64)
    counts = np.array([count for cell in cells for count in cell.values()], np.int64)
    return SparseRows(np.concatenate([[0], ends[:-1]]), ends, genes, counts)


def random_cell(n: int, seed: int) -> dict[int, int]:
    rng = np.random.default_rng(seed)
    return {int(g): int(c) for g, c in zip(rng.permutation(N_GENES)[:n], rng.integers(1, 9, n), strict=True)}


@pytest.mark.parametrize("n", [0, 1, 30, 45, 46, 150, 190, 200])
@pytest.mark.parametrize("tokens", [50, 200, 500])
def test_every_expressed_gene_is_shown_with_its_count(n: int, tokens: int) -> None:
    cell = random_cell(n, n)
    cover = GeneCover(np.arange(N_GENES), N_GENES, tokens, 0.1)
    dealt = cover.deal(rows_of([cell]))
    shown: dict[int, int] = {}
    for genes, counts in zip(dealt.genes.tolist(), dealt.counts.tolist(), strict=True):
        assert len(set(genes)) == len(genes) == min(tokens, N_GENES)
        assert all(count == cell.get(gene, 0) for gene, count in zip(genes, counts, strict=True))
        shown |= {gene: count for gene, count in zip(genes, counts, strict=True) if count}
    assert shown == cell


def test_samples_depend_on_the_cell_alone() -> None:
    cells = [random_cell(n, n) for n in (10, 120, 77)]
    cover = GeneCover(np.arange(N_GENES), N_GENES, 50, 0.1)
    together = cover.deal(rows_of(cells))
    for place, cell in enumerate(cells):
        backwards = dict(reversed(cell.items()))
        alone = cover.deal(rows_of([backwards]))
        for name in ("genes", "counts"):
            np.testing.assert_array_equal(getattr(together, name)[together.cell == place], getattr(alone, name))


def test_the_order_of_the_panel_does_not_matter() -> None:
    rows = rows_of([random_cell(20, 1)])
    forwards = GeneCover(np.arange(N_GENES), N_GENES, 50, 0.1).deal(rows)
    backwards = GeneCover(np.arange(N_GENES)[::-1].copy(), N_GENES, 50, 0.1).deal(rows)
    np.testing.assert_array_equal(forwards.genes, backwards.genes)


def test_samples_can_be_limited() -> None:
    cover = GeneCover(np.arange(N_GENES), N_GENES, 50, 0.1, max_samples=2)
    dealt = cover.deal(rows_of([random_cell(150, 0), random_cell(20, 1)]))
    assert dealt.cell.tolist() == [0, 0, 1]
