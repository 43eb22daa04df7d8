from __future__ import annotations

import numpy as np

from lexicell.genes.gene_groups import join_pairs, number_species


def test_groups_hold_one_gene_of_every_species() -> None:
    species = np.array([0, 0, 0, 1, 1, 1, 2, 2, -1])
    ab = np.array([[0, 3], [1, 4], [2, 5]])
    bc = np.array([[3, 6], [4, 7], [5, 8]])  # 8 takes no part
    np.testing.assert_array_equal(join_pairs(9, species, [ab, bc], 3), [[0, 3, 6], [1, 4, 7]])


def test_two_genes_of_a_species_make_no_group() -> None:
    species = np.array([0, 0, 1, 1, 2])
    pairs = [np.array([[0, 2], [1, 3]]), np.array([[2, 4], [3, 4]])]
    assert join_pairs(5, species, pairs, 3).shape == (0, 3)


def test_no_pairs_make_no_groups() -> None:
    assert join_pairs(4, np.array([0, 1, 0, 1]), [], 2).shape == (0, 2)


def test_species_are_numbered_as_wanted() -> None:
    np.testing.assert_array_equal(number_species(["b", "a", "c"], ["a", "b"]), [1, 0, -1])
