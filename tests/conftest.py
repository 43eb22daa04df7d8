"""Fixtures that several test files share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from anndata import AnnData

from lexicell.data.store import Store
from lexicell.datasets.simulate import SimulationConfig, simulate
from lexicell.workflows.prepare import prepare

LABELS = ("class", "type")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real data sets that not every machine has."""
    folder = os.environ.get("LEXICELL_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("LEXICELL_DATA does not name a folder with the real data sets")
    return Path(folder)


@pytest.fixture(scope="session")
def species_cells() -> dict[str, AnnData]:
    """Simulated cells of two species: 120 cells, 400 genes, 2 classes of 2 types, several donors each."""
    config = SimulationConfig(
        phylogeny="(simulus_albus:0.2,simulus_niger:0.2);",
        n_cells=120,
        n_genes=400,
        branching=(2, 2),
        convergent_species=(),
    )
    return dict(simulate(config).cells)


@pytest.fixture(scope="session")
def cells(species_cells: dict[str, AnnData]) -> AnnData:
    """Cells of one simulated species."""
    return species_cells["simulus_albus"]


@pytest.fixture(scope="session")
def stores(species_cells: dict[str, AnnData], tmp_path_factory: pytest.TempPathFactory) -> list[Store]:
    """One store a species."""
    made = []
    for species, adata in species_cells.items():
        out = tmp_path_factory.mktemp("stores") / species
        dataset = {"adata": adata, "species": species, "donor": "donor", "labels": list(LABELS)}
        prepare({"datasets": [dataset]}, out)
        made.append(Store.open(out))
    return made


@pytest.fixture(scope="session")
def store(stores: list[Store]) -> Store:
    """The store of `cells`."""
    return stores[0]
