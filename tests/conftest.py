"""Fixtures that several test files share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from anndata import AnnData

from lexicell.data.cells import covariate_levels, merge_label_trees, merge_lexicons
from lexicell.data.store import Store
from lexicell.datasets.simulate import SimulationConfig, simulate
from lexicell.inference.cell_model import CellModel
from lexicell.model.checkpoint import ModelSpec
from lexicell.model.encoder import EncoderConfig
from lexicell.model.network import ModelConfig
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


@pytest.fixture(scope="session")
def cell_model(stores: list[Store]) -> CellModel:
    """An untrained model of both species, every weight moved off zero so that every path counts."""
    spec = ModelSpec(
        config=ModelConfig(encoder=EncoderConfig(width=16, layers=1, heads=2)),
        lexicon=merge_lexicons(stores),
        label_tree=merge_label_trees(stores),
        covariates=covariate_levels(stores),
        tokens=64,
        silent_share=0.1,
    )
    network, generator = spec.build(), torch.Generator().manual_seed(0)
    network.initialise(generator)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return CellModel(network, spec, device="cpu")
