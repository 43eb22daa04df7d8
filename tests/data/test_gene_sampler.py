from __future__ import annotations

import numpy as np
import pytest

from lexicell.data.gene_sampler import (
    GeneSampler,
    SampleShape,
    SamplingConfig,
    SparseRows,
    fit_shape,
    query_probabilities,
)
from lexicell.errors import InputError

N_GENES = 300


def random_rows(n_cells: int, n_expressed: int, seed: int = 0) -> SparseRows:
    rng = np.random.default_rng(seed)
    genes = np.concatenate([np.sort(rng.choice(N_GENES, n_expressed, replace=False)) for _ in range(n_cells)])
    starts = np.arange(n_cells) * n_expressed
    return SparseRows(starts, starts + n_expressed, genes, rng.integers(1, 50, len(genes)))


def dense(rows: SparseRows) -> np.ndarray:
    out = np.zeros((len(rows.begin), N_GENES), np.int64)
    for i, (b, e) in enumerate(zip(rows.begin, rows.end, strict=True)):
        out[i, rows.genes[b:e]] = rows.counts[b:e]
    return out


SHAPE = SampleShape(views=2, tokens=32, queries=16, dealt_tokens=6, dealt_queries=8)


def draw(rows: SparseRows, shape: SampleShape = SHAPE, first: int = 0, panels=None, seed: int = 3):
    n = len(rows.begin)
    sampler = GeneSampler(shape, panels or [np.arange(N_GENES)], N_GENES, seed)
    where = np.arange(first, first + n)
    return sampler.sample(rows, panel=np.zeros(n, np.int64), hand=where, position=where), sampler


@pytest.mark.parametrize("n_expressed", [0, 3, 40, 79, 80, 200, N_GENES])
def test_no_gene_stands_twice_and_counts_are_true(n_expressed: int) -> None:
    rows = random_rows(20, n_expressed)
    sample, _ = draw(rows)
    genes = np.concatenate([sample.genes.transpose(1, 0, 2).reshape(20, -1), sample.query_genes], axis=1)
    assert all(len(set(row)) == len(row) for row in genes.tolist())
    truth = dense(rows)
    np.testing.assert_array_equal(sample.query_counts, np.take_along_axis(truth, sample.query_genes, 1))
    for view in range(2):
        np.testing.assert_array_equal(sample.counts[view], np.take_along_axis(truth, sample.genes[view], 1))


def test_one_deal_shows_and_asks_every_gene() -> None:
    _, sampler = draw(random_rows(1, 5))
    hands = sampler.hands_per_deal(0)
    for deal in range(3):
        sample, _ = draw(random_rows(hands, 0, seed=deal), first=deal * hands)
        # The dealt queries come first; silent cells have no other tokens than dealt cards.
        assert set(sample.query_genes[:, : SHAPE.dealt_queries].ravel()) == set(range(N_GENES))
        assert set(sample.genes.ravel()) == set(range(N_GENES))


def test_dealt_cards_alone_cover_the_panel_when_cells_are_full() -> None:
    _, sampler = draw(random_rows(1, 5))
    hands = sampler.hands_per_deal(0)
    sample, _ = draw(random_rows(hands, N_GENES))
    seen = np.bincount(sample.genes.ravel(), minlength=N_GENES)
    assert seen.min() >= 1


def test_a_cells_draw_does_not_depend_on_its_batch() -> None:
    rows = random_rows(10, 60)
    whole, sampler = draw(rows)
    last = SparseRows(rows.begin[7:], rows.end[7:], rows.genes, rows.counts)
    alone = sampler.sample(last, panel=np.zeros(3, np.int64), hand=np.arange(7, 10), position=np.arange(7, 10))
    np.testing.assert_array_equal(alone.genes, whole.genes[:, 7:])
    np.testing.assert_array_equal(alone.query_genes, whole.query_genes[7:])


def test_another_seed_draws_otherwise() -> None:
    rows = random_rows(4, 60)
    assert not np.array_equal(draw(rows, seed=1)[0].genes, draw(rows, seed=2)[0].genes)


def test_tokens_are_drawn_evenly_from_the_expressed_genes() -> None:
    rows = random_rows(1, 200)
    many = SparseRows(np.repeat(rows.begin, 4000), np.repeat(rows.end, 4000), rows.genes, rows.counts)
    sample, _ = draw(many)
    seen = np.bincount(sample.genes.ravel(), minlength=N_GENES)[rows.genes]
    # Each expressed gene is shown with one and the same chance; counts are within 5 standard deviations.
    assert np.abs(seen - seen.mean()).max() < 5 * np.sqrt(seen.mean())


@pytest.mark.parametrize("n_expressed", [90, 200, 290])
def test_genes_are_shown_together_as_often_as_chance_has_it(n_expressed: int) -> None:
    rows = random_rows(1, n_expressed)
    n = 20_000
    many = SparseRows(np.repeat(rows.begin, n), np.repeat(rows.end, n), rows.genes, rows.counts)
    sample, _ = draw(many)
    drawn = slice(SHAPE.dealt_tokens // 2, None)
    n_drawn = sample.genes[0, 0, drawn].size
    first, second = (np.zeros((n, N_GENES), np.float32) for _ in range(2))
    np.put_along_axis(first, sample.genes[0][:, drawn], 1, 1)
    np.put_along_axis(second, sample.genes[1][:, drawn], 1, 1)
    own = rows.genes
    within, across = (first.T @ first)[np.ix_(own, own)], (first.T @ second)[np.ix_(own, own)]
    # Neighbours in the row, which lie beside each other while they are drawn, and the two ends of it.
    for kind, table in (("in one view", within), ("in two views", across)):
        pairs = {"next": np.diagonal(table, 1), "next but one": np.diagonal(table, 2), "far": np.diagonal(table, 50)}
        for name, found in pairs.items():
            expected = n * (n_drawn / n_expressed) ** 2
            assert found.mean() == pytest.approx(expected, rel=0.12 if n_expressed < 100 else 0.05), (kind, name)
            assert found.mean() == pytest.approx(pairs["far"].mean(), rel=0.02), (kind, name)


def test_queries_are_drawn_evenly_from_the_expressed_genes() -> None:
    rows = random_rows(1, 200)
    n = 20_000
    many = SparseRows(np.repeat(rows.begin, n), np.repeat(rows.end, n), rows.genes, rows.counts)
    sample, _ = draw(many)
    drawn = sample.query_genes[:, SHAPE.dealt_queries :]
    seen = np.bincount(drawn.ravel(), minlength=N_GENES)[rows.genes]
    assert seen.sum() == drawn.size  # only expressed ones
    assert ((seen - seen.mean()) ** 2 / seen.mean()).sum() < 199 + 5 * np.sqrt(2 * 199)


@pytest.mark.parametrize("needed", [1, 10, 70])
def test_too_few_chosen_are_drawn_anew_as_evenly(needed: int) -> None:
    shape = SampleShape(views=1, tokens=needed + 1, queries=needed + 1, dealt_tokens=1, dealt_queries=1)
    rows = random_rows(1, 250)
    n = 20_000
    many = SparseRows(np.repeat(rows.begin, n), np.repeat(rows.end, n), rows.genes, rows.counts)
    sample, _ = draw(many, shape)
    seen = np.bincount(sample.genes[0][:, 1:].ravel(), minlength=N_GENES)[rows.genes]
    assert seen.sum() == n * needed
    assert ((seen - seen.mean()) ** 2 / seen.mean()).sum() < 249 + 5 * np.sqrt(2 * 249)


def test_genes_come_only_from_the_cells_own_panel() -> None:
    panels = [np.arange(0, 150), np.arange(150, 300)]
    sampler = GeneSampler(SHAPE, panels, N_GENES, 0)
    rows = random_rows(2, 0)
    sample = sampler.sample(rows, panel=np.array([0, 1]), hand=np.array([0, 0]), position=np.array([0, 1]))
    assert sample.genes[:, 0].max() < 150 <= sample.genes[:, 1].min()
    assert sample.query_genes[0].max() < 150 <= sample.query_genes[1].min()


def test_shape_shrinks_to_a_small_panel() -> None:
    shape = fit_shape(SamplingConfig(tokens=512, views=2, queries=128), smallest_panel=500)
    assert shape.views * shape.tokens + shape.queries <= 500
    assert shape.tokens > 200
    assert fit_shape(SamplingConfig(tokens=64, queries=32), 10_000).tokens == 64


def test_a_panel_that_is_too_small_is_refused() -> None:
    with pytest.raises(InputError, match="panel of 5 genes is too small"):
        fit_shape(SamplingConfig(), 5)


@pytest.mark.parametrize("bad", [{"tokens": 1}, {"views": 3}, {"deck_share": 0.0}, {"query_deck_share": 1.0}])
def test_bad_settings_are_refused(bad: dict) -> None:
    with pytest.raises(InputError, match="sampling"):
        SamplingConfig(**bad)


@pytest.mark.parametrize("n_expressed", [20, 60, 200])
def test_query_probabilities_agree_with_the_sampler(n_expressed: int) -> None:
    rows = random_rows(1, n_expressed)
    n = 6000
    many = SparseRows(np.repeat(rows.begin, n), np.repeat(rows.end, n), rows.genes, rows.counts)
    sample, _ = draw(many)
    asked = np.bincount(sample.query_genes.ravel(), minlength=N_GENES) / n
    expressed = np.zeros(N_GENES, bool)
    expressed[rows.genes] = True
    if_expressed, if_silent = query_probabilities(SHAPE, np.array([n_expressed]), N_GENES)
    assert asked[expressed].mean() == pytest.approx(if_expressed[0], rel=0.03)
    assert asked[~expressed].mean() == pytest.approx(if_silent[0], rel=0.03)


def test_weighted_tokens_have_higher_counts_and_queries_do_not() -> None:
    rows = random_rows(60, 250)
    weighted = SampleShape(views=2, tokens=32, queries=16, dealt_tokens=6, dealt_queries=8, count_weight=1.0)
    (plain, _), (heavy, _) = draw(rows), draw(rows, weighted)
    assert heavy.counts.mean() > 1.15 * plain.counts.mean()
    assert heavy.query_counts.mean() == pytest.approx(plain.query_counts.mean(), rel=0.1)
    genes = np.concatenate([heavy.genes.transpose(1, 0, 2).reshape(60, -1), heavy.query_genes], axis=1)
    assert all(len(set(row)) == len(row) for row in genes.tolist())


def test_chances_are_checked() -> None:
    with pytest.raises(InputError, match=r"count_weight and thinning are chances from 0 to 1; got 1\.5 and 0\.0"):
        SamplingConfig(count_weight=1.5)
