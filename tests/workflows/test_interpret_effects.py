from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lexicell.data.store import Store
from lexicell.datasets.simulate import Simulation, SimulationConfig, simulate
from lexicell.errors import InputError
from lexicell.inference.cell_model import CellModel
from lexicell.reporting.text import print_tables
from lexicell.workflows.interpret_attribution import interpret_attribution, plain_name
from lexicell.workflows.interpret_knockout import interpret_knockout
from lexicell.workflows.interpret_options import AttributionOptions, KnockoutOptions
from lexicell.workflows.prepare import prepare
from lexicell.workflows.pretrain import pretrain

SPECIES = "simulus_albus"


@pytest.fixture(scope="module")
def markers(stores: list[Store], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of chance symbols for each class, called a little otherwise."""
    symbols, rng = stores[0].lexicon.table["symbol"].to_numpy(), np.random.default_rng(0)
    path = tmp_path_factory.mktemp("markers") / "markers.gmt"
    names = [f"{name.lower()} cells" for name in sorted(set(stores[0].obs["class"]))]
    lines = ["\t".join([name, "", *map(str.upper, rng.choice(symbols, 30, replace=False))]) for name in names]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_labels_are_attributed_beside_differential_expression(
    run: Path, markers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = interpret_attribution(
        run,
        by="class",
        species=SPECIES,
        markers=markers,
        cells=6,
        options=AttributionOptions(steps=3, kept=40),
        out=tmp_path,
        progress=False,
    )
    figures = json.loads(json.dumps(found.figures()))
    assert figures["through"] == "label head"
    assert set(figures["summary"]) >= {"recall", "de_recall", "recall_less_de", "fold_recall", "recall_less_fold"}
    assert (found.genes.groupby("group").size() == 40).all()
    assert found.genes.groupby("group", sort=False)["attribution"].apply(lambda v: v.is_monotonic_decreasing).all()
    assert (found.markers["markers"] > 10).all()
    assert {path.name for path in found.written} == {path.name for path in tmp_path.iterdir()}
    print_tables(found.tables())
    assert "recall@20" in capsys.readouterr().out


def test_labels_that_the_head_does_not_know_are_read_by_a_probe(cell_model: CellModel, store: Store) -> None:
    found = interpret_attribution(
        cell_model,
        store.path,
        by="donor",
        species=SPECIES,
        cells=8,
        options=AttributionOptions(method="gradient", baseline="silent"),
        progress=False,
    )
    assert found.through == "probe"
    assert found.written == ()
    assert not len(found.markers)


def test_attribution_refuses_what_it_cannot_do(run: Path, cell_model: CellModel, store: Store, markers: Path) -> None:
    options = AttributionOptions(through="head")
    with pytest.raises(InputError, match="cannot tell 'donor'"):
        interpret_attribution(run, by="donor", species=SPECIES, options=options, progress=False)
    with pytest.raises(InputError, match="no nonsense with 3 cells"):
        interpret_attribution(run, by="class", species=SPECIES, groups=["nonsense"], progress=False)
    with pytest.raises(InputError, match="no set named like a label"):
        interpret_attribution(run, by="donor", species=SPECIES, markers=markers, progress=False)
    with pytest.raises(InputError, match="integrated, gradient"):
        AttributionOptions(method="guess")  # type: ignore[arg-type]


def test_names_of_types_are_matched_plainly() -> None:
    assert plain_name("T_cell") == plain_name("T cells") == "t"
    assert plain_name("Beta cells") == plain_name("beta")
    assert plain_name("cells") == "cells"


def test_knock_outs_stand_beside_genes_expressed_alike(
    run: Path, stores: list[Store], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expression = np.asarray(stores[0].to_anndata().X.sum(axis=0)).ravel()
    genes = stores[0].lexicon.table["symbol"].to_numpy()[np.argsort(-expression)]
    found = interpret_knockout(
        run,
        genes=[genes[0], genes[9]],
        by="class",
        species=SPECIES,
        options=KnockoutOptions(cells=5, pool=15, controls=6, responding=20, scan=3),
        out=tmp_path,
        progress=False,
    )
    json.dumps(found.figures())
    assert set(found.genes["symbol"]) >= {genes[0]}
    assert (found.genes["cells"] <= 5).all()
    assert found.genes["shift"].gt(0).all()
    assert found.genes["own_label"].notna().all()
    for effect in ("shift", "response", "own_label"):
        assert found.genes[f"{effect}_p"].dropna().between(0, 1).all()
    pairs = found.responses[["symbol", "responding"]]
    assert (pairs["symbol"] != pairs["responding"]).all()  # a gene's own count is no response
    assert {path.name for path in found.written} == {path.name for path in tmp_path.iterdir()}
    print_tables(found.tables())
    assert "Knocked out (zero)" in capsys.readouterr().out


def test_knock_out_refuses_what_it_cannot_do(cell_model: CellModel, store: Store, cells) -> None:
    with pytest.raises(InputError, match="which genes"):
        interpret_knockout(cell_model, store.path, species=SPECIES, progress=False)
    with pytest.raises(InputError, match="with --by"):
        interpret_knockout(cell_model, store.path, species=SPECIES, genes=["x"], groups=["a"], progress=False)
    silent = cells.var_names[np.asarray((cells.X > 0).sum(axis=0)).ravel() == 0]
    assert len(silent)
    with pytest.raises(InputError, match="no group has 5 cells"):
        interpret_knockout(cell_model, store.path, species=SPECIES, genes=[silent[0]], progress=False)
    with pytest.raises(InputError, match="zero, remove"):
        KnockoutOptions(mode="delete")  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Simulation]:
    """A run on simulated cells with planted markers, trained long enough to know its types."""
    simulation = simulate(
        SimulationConfig(
            phylogeny="(simulus_albus:0.1,simulus_niger:0.1);",
            n_cells=900,
            n_genes=600,
            branching=(2, 3),
            markers_per_type=8,
            type_spread=0.3,  # so that markers are what tells types apart
            convergent_species=(),
            n_convergent=0,
        )
    )
    folder = tmp_path_factory.mktemp("planted")
    dataset = {"adata": simulation.cells[SPECIES], "species": SPECIES, "donor": "donor", "labels": ["class", "type"]}
    prepare({"datasets": [dataset]}, folder / "store")
    settings = {"model.encoder.width": 48, "sampling.tokens": 192, "sampling.queries": 32, "data.batch_size": 8}
    settings |= {"trainer.max_steps": 600, "trainer.val_every": 300, "trainer.accelerator": "cpu"}
    pretrain("tiny", folder / "store", folder / "run", overrides=settings, progress=False)
    return folder / "run", simulation


@pytest.mark.slow
@pytest.mark.parametrize("method", ["integrated", "gradient"])
def test_planted_markers_are_found(planted: tuple[Path, Simulation], tmp_path: Path, method: str) -> None:
    run, simulation = planted
    genes = simulation.genes[(simulation.genes["species"] == SPECIES) & (simulation.genes["marker_of"] != "")]
    path = tmp_path / "markers.gmt"
    lines = ["\t".join([str(kind), "", *part["symbol"]]) for kind, part in genes.groupby("marker_of")]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    options = AttributionOptions(method=method, steps=64)  # type: ignore[arg-type]  # with 16, one type misses .12
    found = interpret_attribution(
        run, by="type", markers=path, cells=30, options=options, out=tmp_path / "out", progress=False
    )
    print(found.markers.to_string(), found.summary(), found.groups["gap"].tolist())
    assert found.summary()["auroc"][0] > 0.8
    assert found.summary()["recall"][0] > 0.5
    if method == "integrated":
        assert (found.groups["gap"] < 0.1).all()


@pytest.mark.slow
def test_knocked_out_markers_lower_their_type(planted: tuple[Path, Simulation], tmp_path: Path) -> None:
    run, simulation = planted
    genes = simulation.genes[simulation.genes["species"] == SPECIES]
    kinds = sorted(set(genes["marker_of"]) - {""})[:3]
    wanted = genes[genes["marker_of"].isin(kinds)]
    found = interpret_knockout(
        run,
        genes=wanted["symbol"].tolist(),
        by="type",
        groups=kinds,
        options=KnockoutOptions(cells=20, pool=80, controls=20, responding=50),
        out=tmp_path,
        progress=False,
    ).genes
    of = found["symbol"].map(wanted.set_index("symbol")["marker_of"])
    own = found[(of == found["group"]) & (found["cells"] >= 5)]
    strangers = found[(of != found["group"]) & (found["cells"] >= 5)]
    print(pd.DataFrame({"own": own["own_label_z"].describe(), "strangers": strangers["own_label_z"].describe()}))
    assert own["own_label_z"].median() < -1
    assert own["own_label_z"].median() < strangers["own_label_z"].median()
    assert own["shift_z"].median() > 0.5
