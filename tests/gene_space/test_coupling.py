from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csc_matrix

from lexicell.datasets.simulate import Simulation, SimulationConfig, simulate
from lexicell.errors import InputError
from lexicell.evaluation.baselines import log_cpm
from lexicell.gene_space.coupled_genes import gene_cost, match_genes
from lexicell.gene_space.coupling import Coupling, CouplingConfig, couple_species, place_cells, transfer, transport

CONFIG = CouplingConfig(groups=16, genes=200, held_out_genes=100, starts=8, groupings=2, steps=10)
FIRST, SECOND = "simulus_albus", "simulus_niger"


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    return simulate(
        SimulationConfig(
            phylogeny=f"({FIRST}:0.3,{SECOND}:0.3);",
            n_cells=500,
            n_genes=500,
            branching=(2, 3),
            convergent_species=(),
            n_convergent=0,
            missing_types=((FIRST, "T1.2"),),
        )
    )


def logs_of(simulation: Simulation, species: str) -> csc_matrix:
    return log_cpm(simulation.cells[species].X).tocsc()


@pytest.fixture(scope="module")
def couplings(simulation: Simulation) -> list[Coupling]:
    return couple_species(logs_of(simulation, FIRST), logs_of(simulation, SECOND), CONFIG)


def test_types_find_each_other_and_a_new_type_stays_unmatched(
    simulation: Simulation, couplings: list[Coupling]
) -> None:
    first, second = (simulation.cells[s].obs["type"].to_numpy(str) for s in (FIRST, SECOND))
    names, labels = np.unique(first, return_inverse=True)
    probabilities, unmatched = transfer(couplings, labels, len(names))
    shared = np.isin(second, names)
    assert (names[probabilities.argmax(axis=1)][shared] == second[shared]).mean() > 0.9
    assert unmatched[~shared].mean() > 2 * unmatched[shared].mean()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-4)


def test_orthologs_cost_less_than_other_genes(simulation: Simulation, couplings: list[Coupling]) -> None:
    pairs = simulation.orthologs
    a = simulation.cells[FIRST].var_names.get_indexer(pairs["gene_a"])
    b = simulation.cells[SECOND].var_names.get_indexer(pairs["gene_b"])
    cost = gene_cost(couplings, CONFIG, slice(None))[np.ix_(a, b)]
    assert (cost > np.diag(cost)).mean() > 0.8
    matched = match_genes(couplings, CONFIG, k=5)
    assert (matched.genes[b] == a[:, None]).any(axis=1).mean() > 5 * 5 / len(a)
    np.testing.assert_allclose(matched.weights.sum(axis=1), 1, rtol=1e-5)
    assert (np.diff(matched.cost, axis=1) >= 0).all()


def test_the_seed_names_the_coupling(simulation: Simulation, couplings: list[Coupling]) -> None:
    again = couple_species(logs_of(simulation, FIRST), logs_of(simulation, SECOND), CONFIG)
    np.testing.assert_array_equal(again[0].plan, couplings[0].plan)


def test_known_pairs_are_kept(simulation: Simulation) -> None:
    pairs = np.stack(
        [
            simulation.cells[species].var_names.get_indexer(simulation.orthologs[f"gene_{letter}"])
            for species, letter in ((FIRST, "a"), (SECOND, "b"))
        ],
        axis=1,
    )[::2]
    found = couple_species(*(logs_of(simulation, s) for s in (FIRST, SECOND)), CONFIG, pairs=pairs)
    first, second = (simulation.cells[s].obs["type"].to_numpy(str) for s in (FIRST, SECOND))
    names, labels = np.unique(first, return_inverse=True)
    shared = np.isin(second, names)
    assert (names[transfer(found, labels, len(names))[0].argmax(axis=1)] == second)[shared].mean() > 0.9
    matched = match_genes(found, CONFIG, pairs=pairs)
    np.testing.assert_array_equal(matched.genes[pairs[:, 1], 0], pairs[:, 0])
    np.testing.assert_array_equal(matched.weights[pairs[:, 1], 0], 1)
    np.testing.assert_allclose(matched.weights.sum(axis=1), 1, rtol=1e-5)
    with pytest.raises(InputError, match="5 pairs of genes"):
        couple_species(*(logs_of(simulation, s) for s in (FIRST, SECOND)), CONFIG, pairs=pairs[:5])


def test_labelled_cells_decide(simulation: Simulation) -> None:
    first, second = (simulation.cells[s].obs["type"].to_numpy(str) for s in (FIRST, SECOND))
    names, labels = np.unique(first, return_inverse=True)
    # Told the wrong way round, types go where the labels say: here two types change places.
    told = np.where(second == names[0], 1, np.where(second == names[1], 0, -1))
    rare = np.random.default_rng(0).permutation(np.flatnonzero(told >= 0))[20:]
    told[rare] = -1
    found = couple_species(*(logs_of(simulation, s) for s in (FIRST, SECOND)), CONFIG, labels=(labels, told))
    said = transfer(found, labels, len(names))[0].argmax(axis=1)
    changed = [(said[second == names[place]] == 1 - place).mean() for place in (0, 1)]
    assert min(changed) > 0.5


def test_shuffled_counts_agree_less(simulation: Simulation, couplings: list[Coupling]) -> None:
    dense = logs_of(simulation, SECOND).toarray()
    shuffled = csc_matrix(np.random.default_rng(0).permuted(dense, axis=0))
    found = couple_species(logs_of(simulation, FIRST), shuffled, CONFIG)
    assert max(c.score for c in found) < 0.8 * min(c.score for c in couplings)


def test_balanced_transport_keeps_the_masses() -> None:
    rng = np.random.default_rng(0)
    cost = rng.random((4, 6)).astype(np.float32)
    first, second = np.full(4, 0.25, np.float32), np.full(6, 1 / 6, np.float32)
    plan = transport(cost, first, second, 0.2, np.inf)
    np.testing.assert_allclose(plan.sum(axis=0), second, rtol=1e-4)
    np.testing.assert_allclose(plan.sum(axis=1), first, rtol=1e-3)


def test_unbalanced_transport_leaves_what_is_dear() -> None:
    cost = np.array([[0.0, 5.0], [5.0, 5.0]], np.float32)
    half = np.full(2, 0.5, np.float32)
    plan = transport(cost, half, half, 0.05, 0.5)
    assert plan[0, 0] > 0.45
    assert plan[:, 1].sum() < 0.01


def test_too_few_cells_are_refused() -> None:
    with pytest.raises(InputError, match="second species: 10 cells, 30 genes"):
        couple_species(csc_matrix(np.ones((30, 30))), csc_matrix(np.ones((10, 30))))
    with pytest.raises(InputError, match="2 or more groups"):
        CouplingConfig(groups=1)


def test_cells_are_placed_in_the_groups_they_were_grouped_in(simulation: Simulation, couplings: list[Coupling]) -> None:
    second = logs_of(simulation, SECOND)
    types = simulation.cells[SECOND].obs["type"].to_numpy(str)
    for coupling in couplings:
        group = coupling.second.group
        placed = place_cells(second, coupling.second)
        kind = np.array([pd.Series(types[group == g]).mode()[0] for g in range(len(coupling.second.share))])
        assert (kind[placed] == kind[group]).mean() > 0.9  # groups of one type are hard to tell apart, types are not
    labels = np.unique(simulation.cells[FIRST].obs["type"].to_numpy(str), return_inverse=True)[1]
    own = transfer(couplings, labels, labels.max() + 1)
    groups = [coupling.second.group[:7] for coupling in couplings]
    part = transfer(couplings, labels, labels.max() + 1, groups)
    np.testing.assert_array_equal(part[0], own[0][:7])
    np.testing.assert_array_equal(part[1], own[1][:7])
