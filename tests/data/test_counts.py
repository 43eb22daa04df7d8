import numpy as np
import pytest

from lexicell.data.counts import NotCountsError, RawRows, block_of, integers_of


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "uint64", "float16", "float32", "float64"])
def test_whole_numbers_of_any_type_are_counts(dtype):
    counts = integers_of(np.array([0, 1, 1], dtype=dtype))
    assert counts.dtype == np.int32
    assert counts.tolist() == [0, 1, 1]
    assert integers_of(np.array([], dtype=dtype)).tolist() == []


@pytest.mark.parametrize(
    ("value", "dtype", "kind"),
    [
        (np.nan, "float32", "NaN"),
        (np.inf, "float64", "infinite"),
        (-np.inf, "float32", "infinite"),
        (-1, "int8", "negative"),
        (-2.0, "float32", "negative"),
        (0.5, "float32", "fractional"),
        (1e-20, "float64", "fractional"),
        (2.0**31, "float32", "impossibly large"),
        (2**31, "int64", "impossibly large"),
        (2**63, "uint64", "impossibly large"),
        (1e300, "float64", "impossibly large"),
    ],
)
def test_everything_else_is_refused_with_its_place(value, dtype, kind):
    values = np.array([3, 0, value, 1], dtype=dtype)
    with pytest.raises(NotCountsError) as caught:
        integers_of(values)
    assert (caught.value.position, caught.value.kind) == (2, kind)


@pytest.mark.parametrize("values", [np.array(["1"]), np.array([1 + 2j]), np.array([None])])
def test_what_is_no_number_is_refused(values):
    with pytest.raises(NotCountsError, match="not a number"):
        integers_of(values)


def test_the_largest_count():
    assert integers_of(np.array([2**31 - 1])).tolist() == [2**31 - 1]


def rows(data, genes, indptr):
    return RawRows(np.array(data), np.array(genes), np.array(indptr))


def test_rows_in_order_stay_as_they_are():
    block = block_of(rows([1, 2, 3], [0, 2, 1], [0, 2, 2, 3]), np.arange(3, dtype=np.int32), 3)
    assert block.lengths.tolist() == [2, 0, 1]
    assert block.genes.tolist() == [0, 2, 1]
    assert block.depths.tolist() == [3, 0, 3]


def test_genes_are_mapped_dropped_summed_and_sorted():
    gene_map = np.array([5, -1, 2, 5], dtype=np.int32)
    block = block_of(rows([1, 9, 3, 4, 0, 7], [0, 1, 2, 3, 2, 1], [0, 4, 5, 6]), gene_map, 6)
    assert block.lengths.tolist() == [2, 0, 0]
    assert block.genes.tolist() == [2, 5]
    assert block.counts.tolist() == [3, 5]
    assert block.depths.tolist() == [8, 0, 0]


def test_a_sum_that_is_no_count_is_refused():
    with pytest.raises(NotCountsError, match="impossibly large"):
        block_of(rows([2**31 - 1, 1], [0, 0], [0, 2]), np.zeros(1, dtype=np.int32), 1)
