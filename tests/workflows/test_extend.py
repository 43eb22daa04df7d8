from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from scipy.sparse import csr_matrix

from lexicell.data.store import Store
from lexicell.datasets.simulate import Simulation, SimulationConfig, simulate
from lexicell.errors import InputError
from lexicell.inference.cell_model import CellModel
from lexicell.model.checkpoint import load_model
from lexicell.training.extension import run_cells
from lexicell.training.recipe import load_recipe
from lexicell.training.run_folder import read_json
from lexicell.workflows.annotate import annotate
from lexicell.workflows.embed import embed
from lexicell.workflows.extend import extend
from lexicell.workflows.extend_result import ExtendResult
from lexicell.workflows.genes import genes_table
from lexicell.workflows.prepare import prepare
from lexicell.workflows.pretrain import pretrain
from lexicell.workflows.species_measures import Yardstick

extend_module = import_module("lexicell.workflows.extend")
OLD, NEW = "simulus_albus", "simulus_niger"
SHORT = {
    "phase1.steps": 6,
    "phase1.val_every": 3,
    "phase1.warmup_steps": 1,
    "phase2.steps": 4,
    "phase2.val_every": 2,
    "phase2.warmup_steps": 1,
    "measure.cells": 60,
    "measure.reference": 60,
    "rows.coupling.groupings": 1,
    "rows.coupling.starts": 2,
}


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    """Two species of 2 classes of 2 types; the old one lacks a type."""
    return simulate(
        SimulationConfig(
            phylogeny=f"({OLD}:0.2,{NEW}:0.2);",
            n_cells=120,
            n_genes=300,
            branching=(2, 2),
            markers_per_type=6,
            convergent_species=(),
            n_convergent=0,
            missing_types=((OLD, "T2.2"),),
        )
    )


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out pictures, which take longer than all the rest."""
    monkeypatch.setattr(extend_module, "report", lambda *_, **__: None)
    monkeypatch.setattr(extend_module, "write_tables", lambda *_: None)


def prepared(adata: AnnData, species: str, out: Path, **more: object) -> Path:
    dataset = {"adata": adata, "species": species, "donor": "donor", "labels": ["class", "type"], **more}
    prepare({"datasets": [dataset]}, out, progress=False)
    return out


@pytest.fixture(scope="module")
def folder(simulation: Simulation, small: dict[str, object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stores of both species, a run on the old one, and the ortholog table."""
    folder = tmp_path_factory.mktemp("extend")
    for species, adata in simulation.cells.items():
        prepared(adata, species, folder / species)
    simulation.orthologs.to_csv(folder / "orthologs.tsv", sep="\t", index=False)
    pretrain("tiny", folder / OLD, folder / "run", overrides=small | {"trainer.max_steps": 20}, progress=False)
    return folder


@pytest.fixture(scope="module")
def extended(folder: Path) -> Iterator[ExtendResult]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "umap", None)  # pictures by PCA: importing UMAP takes longer than all the rest
        yield extend(
            folder / "run",
            folder / NEW,
            folder / "run2",
            truth_levels="class,type",
            orthologs=folder / "orthologs.tsv",
            overrides=SHORT,
            progress=False,
        )


def test_old_indices_stay_and_old_rows_are_equal_bit_for_bit_after_phase_1(
    folder: Path, extended: ExtendResult
) -> None:
    old, old_spec = load_model(folder / "run")
    first, first_spec = load_model(extended.run / "phase1")
    n_old = len(old_spec.lexicon)
    assert len(first_spec.lexicon) == n_old + 300
    pd.testing.assert_frame_equal(first_spec.lexicon.table.iloc[:n_old], old_spec.lexicon.table)
    assert torch.equal(first.genes.weight[:n_old], old.genes.weight)
    for name, value in old.state_dict().items():
        if not name.startswith(("genes.", "covariates.", "bag.usual", "marginal")):
            assert torch.equal(first.state_dict()[name], value), name
    assert torch.equal(first.bag.usual[:n_old], old.bag.usual)
    assert torch.equal(first.marginal[:n_old], old.marginal)
    torch.testing.assert_close(first.marginal.exp().sum(dim=1), torch.ones(n_old + 300), rtol=0, atol=0.1)
    assert first_spec.covariates == {"species": (OLD, NEW)}
    assert (first.covariates.tables[0].weight[:2] == 0).all()  # unknown, and the old species
    assert (first.covariates.tables[0].weight[2] != 0).any()
    forgetting = extended.figures()["forgetting"]
    assert forgetting["old_rows_equal_after_phase1"]
    assert forgetting["old_model_equal_after_phase1"]
    second = load_model(extended.run)[0]
    assert not torch.equal(second.genes.weight[:n_old], old.genes.weight)  # phase 2 moves everything


def test_figures_hold_what_they_should(extended: ExtendResult) -> None:
    figures = json.loads(json.dumps(extended.figures()))
    assert figures["finished"]
    assert figures["species"] == [NEW]
    new = figures["new_species"]
    assert 0 <= new["accuracy"] <= 1
    assert 0 <= new["macro_f1"] <= 1
    assert new["level"] == "type"
    assert new["method"] == "label_head"
    assert new["new_type_cells"] > 0  # of the type that the old species lacks
    assert set(new["unknown"]) == {"unsure", "far"}
    assert 0.5 < figures["ortholog_auc"] <= 1  # by expression profile alone, far better than chance
    assert set(figures["steps"]) == {"rows", "phase1", "phase2"}
    assert figures["steps"]["rows"]["old_species"] == figures["steps"]["phase1"]["old_species"]
    assert {"lost", "before", "after"} <= set(figures["forgetting"])
    titles = ["Extension", "Labels of matched groups", "New species, and what the old ones lost"]
    assert [table.title for table in extended.tables()] == titles


def test_the_coupling_labels_every_new_cell(extended: ExtendResult, folder: Path) -> None:
    table = pd.read_parquet(extended.run / "report" / "species_labels.parquet")
    store = Store.open(folder / NEW)
    assert list(table.columns) == ["cell", "source", "species", "class", "class_prob", "type", "type_prob", "unknown"]
    assert table["cell"].tolist() == store.obs.index.tolist()  # held-out cells too
    assert set(table["species"]) == {NEW}
    assert set(table["type"].dropna()) <= set(Store.open(folder / OLD).obs["type"])
    for column in ("class_prob", "type_prob", "unknown"):
        assert table[column].between(0, 1 + 1e-6).all()
    assert (table["type_prob"] <= table["class_prob"] + 1e-6).all()
    text = pd.read_csv(extended.run / "report" / "species_labels.csv")
    pd.testing.assert_series_equal(text["cell"].astype(str), table["cell"].astype(str), check_dtype=False)
    figures = json.loads(json.dumps(extended.figures()))["coupled_labels"]
    assert figures["cells"] == store.n_cells
    scores = figures["levels"]["type"]
    assert scores["new_types"] == ["T2.2"]
    shared = store.obs["type"].astype(str).to_numpy() != "T2.2"
    right = table["type"].to_numpy()[shared] == store.obs["type"].astype(str).to_numpy()[shared]
    assert scores["accuracy"] == pytest.approx(right.mean())
    assert set(scores["unknown"]) == {"unmatched", "unsure"}
    assert any("fewer than 600 of either" in note for note in extended.notes)
    notes = pd.read_csv(extended.run / "report" / "extension_notes.csv")["note"]
    assert notes.str.contains("fewer than 600 of either").any()


def test_shared_types_alone_are_scored(extended: ExtendResult, folder: Path) -> None:
    scores = extended.figures()["steps"]["phase2"]["new_species"]["methods"]["knn"]["type"]
    assert scores["new_types"] == ["T2.2"]
    store = Store.open(folder / NEW)
    share = float((store.obs["type"] == "T2.2").mean())
    assert scores["new_type_cells"] / (scores["cells"] + scores["new_type_cells"]) == pytest.approx(share, abs=0.15)


def test_the_new_run_is_a_run_like_any_other(extended: ExtendResult, simulation: Simulation, folder: Path) -> None:
    run = extended.run
    names = {path.name for path in run.iterdir()}
    assert names >= {"recipe.yaml", "run.json", "metrics.csv", "exposure.npy", "checkpoints", "report.html"}
    assert names >= {"model.safetensors", "config.json", "lexicon.parquet", "extension.json", "phase1"}
    assert not names & {"start", "phase2"}
    assert [entry["name"] for entry in read_json(run / "run.json")["stores"]] == [
        Store.open(folder / name).name for name in (OLD, NEW)
    ]
    assert "A species joined" in (run / "report.html").read_text(encoding="utf-8")
    model = CellModel.load(run)
    for species in (OLD, NEW):
        cells = simulation.cells[species][:20]
        assert np.isfinite(embed(model, cells, species=species, progress=False).adata.obsm["X_lexicell"]).all()
    found = annotate(model, simulation.cells[NEW][:20], method="head", species=NEW, progress=False)
    assert set(found.annotation.levels) == {"class", "type"}
    given = {"species": NEW, "reference_species": OLD, "progress": False}
    across = annotate(
        model, simulation.cells[NEW][:20], simulation.cells[OLD], ["class", "type"], method="knn", **given
    )
    assert across.annotation.labels("type").notna().all()
    assert across.annotation.unknown is not None
    assert across.overlap is None
    for more, message in (({"method": "probe"}, "across species use method knn"), ({"max_error": 0.1}, "max_error")):
        with pytest.raises(InputError, match=message):
            annotate(model, simulation.cells[NEW], simulation.cells[OLD], "class", **({"method": "knn"} | given | more))
    table = genes_table(run).table
    assert table["few_exposures"].equals(table["shown_expressed"] < 20)
    assert table["few_exposures"].any()
    assert any("hardly learned" in note for note in extended.notes)


def test_exposure_goes_on_from_the_old_run(extended: ExtendResult, folder: Path) -> None:
    old, new = (np.load(path / "exposure.npy") for path in (folder / "run", extended.run))
    assert (new[: len(old)] >= old).all()
    tokens = read_json(extended.run / "run.json")["tokens"]
    assert new[:, :2].sum() - old[:, :2].sum() == (6 + 4) * 8 * 2 * tokens


def test_held_out_cells_stay_held_out(extended: ExtendResult, folder: Path) -> None:
    before = load_recipe(folder / "run" / "recipe.yaml")
    old = run_cells(folder / "run", before, [Store.open(folder / OLD)])
    recipe = load_recipe(extended.run / "recipe.yaml")
    cells = run_cells(extended.run, recipe, [Store.open(folder / OLD), Store.open(folder / NEW)])
    n_old = old.collection.n_cells
    np.testing.assert_array_equal(cells.validation_cells[cells.validation_cells < n_old], old.validation_cells)
    assert (cells.validation_cells >= n_old).any()
    assert not (cells.collection.labels[n_old:] >= 0).any()  # labels of the new species are not trained on


def killed(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.usefixtures("no_report")
def test_a_stopped_extension_goes_on_to_the_same_weights(extended: ExtendResult, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run2"

    def go(*, resume: bool) -> ExtendResult:
        return extend(
            folder / "run",
            folder / NEW,
            out,
            truth_levels="class,type",
            orthologs=folder / "orthologs.tsv",
            overrides=SHORT,
            resume=resume,
            progress=False,
        )

    def send() -> None:
        while "Stop._receive" not in getattr(signal.getsignal(signal.SIGTERM), "__qualname__", ""):
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=send)
    thread.start()
    stopped = go(resume=False)
    thread.join()
    assert not stopped.finished
    assert list(stopped.steps) == ["rows"]
    with pytest.raises(InputError, match="--resume to go on"):
        go(resume=False)
    with pytest.raises(InputError, match=r"differs in .*recipe"):
        extend(folder / "run", folder / NEW, out, resume=True, overrides=SHORT | {"seed": 1}, progress=False)
    with pytest.MonkeyPatch.context() as patch:  # killed after a phase, before it was measured
        patch.setattr(Yardstick, "measure", killed)
        with pytest.raises(KeyboardInterrupt):
            go(resume=True)
    assert list(ExtendResult.read(out, finished=False).steps) == ["rows"]
    resumed = go(resume=True)
    assert resumed.finished
    expected = load_model(extended.run)[0].state_dict()
    for name, value in load_model(out)[0].state_dict().items():
        assert torch.equal(value, expected[name]), name
    assert resumed.figures()["steps"] == extended.figures()["steps"]
    np.testing.assert_array_equal(np.load(out / "exposure.npy"), np.load(extended.run / "exposure.npy"))
    assert go(resume=True).figures()["steps"] == resumed.figures()["steps"]  # nothing left to do


@pytest.mark.usefixtures("no_report")
def test_genes_that_the_old_panel_lacked_join_in_the_same_way_and_one_after_another(
    extended: ExtendResult, folder: Path, simulation: Simulation, tmp_path: Path
) -> None:
    adata = simulation.cells[NEW][:, :150].copy()
    renamed = [f"EXTRA{place}" if place >= 100 else name for place, name in enumerate(adata.var_names)]
    adata.var_names = renamed
    adata.var["symbol"] = renamed
    panel = prepared(adata, NEW, tmp_path / "panel")
    again = extend(extended.run, panel, tmp_path / "run3", overrides=SHORT | {"phase2.steps": 0}, progress=False)
    assert again.figures()["genes"]["new"] == 50
    lexicon = load_model(again.run)[1].lexicon
    assert lexicon.table["gene_id"].iloc[-50:].str.startswith("EXTRA").all()
    assert [g["n_stores"] for g in read_json(again.run / "extension.json")["generations"]] == [1, 1, 1]
    base = load_recipe(folder / "run" / "recipe.yaml").optim.lr
    phase1 = load_recipe(again.run / "recipe.yaml").optim.lr
    assert phase1 == pytest.approx(10 * base)  # ten times the first run's rate, not that of phase 2
    assert not (again.run / "phase1").exists()  # the last phase is the run


@pytest.mark.usefixtures("no_report")
def test_several_species_join_at_once_also_one_nobody_has_heard_of(
    folder: Path, simulation: Simulation, tmp_path: Path
) -> None:
    adata = simulation.cells[NEW].copy()
    adata.var_names = adata.var["symbol"].astype(str).to_numpy()
    adata.var = adata.var[[]]
    adata.obs = adata.obs[["donor"]]
    prepare({"datasets": [{"adata": adata, "species": "Nyctus fictus", "donor": "donor"}]}, tmp_path / "bat")
    overrides = SHORT | {"phase1.steps": 2, "phase2.steps": 0}
    both = [folder / NEW, tmp_path / "bat"]
    found = extend(folder / "run", both, tmp_path / "out", overrides=overrides, progress=False)
    assert found.figures()["species"] == [NEW, "nyctus_fictus"]
    spec = load_model(found.run)[1]
    assert spec.lexicon.species == (OLD, NEW, "nyctus_fictus")
    assert spec.covariates["species"] == (OLD, "nyctus_fictus", NEW)  # new levels by name, after the old ones
    assert len(spec.lexicon) == 900


@pytest.mark.usefixtures("no_report")
def test_without_the_old_stores(extended: ExtendResult, folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(folder / "run", run)
    facts = read_json(run / "run.json")
    facts["stores"][0]["path"] = str(tmp_path / "moved")
    (run / "run.json").write_text(json.dumps(facts))
    with pytest.raises(InputError, match=r"is not there\. Say where it is with --replay STORE"):
        extend(run, folder / NEW, tmp_path / "a", progress=False)
    with pytest.raises(InputError, match="is not that of a store that"):
        extend(run, folder / NEW, tmp_path / "a", replay=folder / NEW, progress=False)
    assert not (tmp_path / "a").exists()
    alone = extend(run, folder / NEW, tmp_path / "alone", no_replay=True, overrides=SHORT, progress=False)
    assert any("without the old stores nobody can tell" in note for note in alone.notes)
    assert "old_species" not in alone.figures()["steps"]["phase2"]
    assert load_recipe(alone.run / "recipe.yaml").objectives.labels == 0  # nothing to train the head on
    head = [load_model(path)[0].label_head.out.weight for path in (run, alone.run)]
    assert torch.equal(*head)
    moved = tmp_path / "moved"
    shutil.copytree(folder / OLD, moved)
    shorter = SHORT | {"phase1.steps": 2, "phase2.steps": 0}
    found = extend(run, folder / NEW, tmp_path / "b", replay=moved, overrides=shorter, progress=False)
    assert found.finished


def faulty(folder: Path, tmp_path: Path, what: str) -> tuple[Path, dict[str, object]]:
    rng = np.random.default_rng(0)
    counts = csr_matrix(rng.poisson(1.0, (40, 30)).astype(np.int32))
    obs = pd.DataFrame({"donor": ["a", "b"] * 20, "class": "T1", "type": "T1.1"}, index=[f"c{i}" for i in range(40)])
    if what == "same store":
        return folder / OLD, {}
    if what == "other names":
        adata = AnnData(counts, obs=obs, var=pd.DataFrame(index=[f"Other{i}" for i in range(30)]))
        return prepared(adata, OLD, tmp_path / "other"), {}
    if what == "nothing new":
        adata = Store.open(folder / OLD).to_anndata(np.arange(50))
        return prepared(adata, OLD, tmp_path / "part"), {}
    if what == "no such truth":
        return folder / NEW, {"truth_levels": "cluster"}
    if what == "both":
        return folder / NEW, {"replay": folder / OLD, "no_replay": True}
    if what == "wrong orthologs":
        table = tmp_path / "orthologs.csv"
        table.write_text("mouse_symbol,human_symbol\nGad1,GAD1\n")
        return folder / NEW, {"orthologs": table}
    assert what == "unknown field"
    return folder / NEW, {"overrides": {"phase1.speed": 1}}


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("same store", "trained on this very store already"),
        ("other names", "knows simulus_albus already, with 300 genes.*--disjoint-panels"),
        ("nothing new", "bring no gene that the model lacks"),
        ("no such truth", "truth level 'cluster': the model's label levels are 'class', 'type'"),
        ("both", "give one of the two"),
        ("wrong orthologs", "no orthologs between simulus_albus and simulus_niger"),
        ("unknown field", "speed"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(folder: Path, tmp_path: Path, what: str, message: str) -> None:
    store, more = faulty(folder, tmp_path, what)
    with pytest.raises(InputError, match=f"(?s){message}"):
        extend(folder / "run", store, tmp_path / "out", progress=False, **more)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("no_report")
def test_a_far_depth_and_another_protocol_are_told(folder: Path, simulation: Simulation, tmp_path: Path) -> None:
    adata = simulation.cells[NEW].copy()
    adata.X = csr_matrix(np.random.default_rng(0).binomial(adata.X.toarray(), 0.1).astype(np.int32))
    store = prepared(adata, NEW, tmp_path / "nuclei", assay={"value": "10x nuclei"})
    run = pretrain_with_assay(folder, simulation, tmp_path)
    shortest = SHORT | {"phase1.steps": 1, "phase2.steps": 0}
    found = extend(run, store, tmp_path / "out", overrides=shortest, progress=False)
    notes = " ".join(found.notes)
    assert "counts in the median" in notes
    assert "measured by 10x nuclei, the old cells by 10x cells" in notes
    assert load_model(found.run)[1].covariates["assay"] == ("10x cells", "10x nuclei")


def pretrain_with_assay(folder: Path, simulation: Simulation, tmp_path: Path) -> Path:
    store = prepared(simulation.cells[OLD], OLD, tmp_path / "cells", assay={"value": "10x cells"})
    recipe = load_recipe(folder / "run" / "recipe.yaml", {"trainer.max_steps": 2})
    return pretrain(recipe, store, tmp_path / "run", progress=False).run


SHORTEST = SHORT | {"phase1.steps": 1, "phase2.steps": 1}


@pytest.mark.usefixtures("no_report")
def test_labels_true_learns_from_some_cells_and_scores_on_the_others(
    folder: Path, simulation: Simulation, tmp_path: Path
) -> None:
    adata = simulation.cells[NEW].copy()
    truth = adata.obs["type"].astype(str).to_numpy()
    known = np.zeros(adata.n_obs, bool)
    for name in set(truth) - {"T2.2"}:
        known[np.flatnonzero(truth == name)[:5]] = True
    for level in ("class", "type"):
        adata.obs[level] = np.where(known, adata.obs[level].astype(str), None)
    store = prepared(adata, NEW, tmp_path / "some")
    found = extend(
        folder / "run",
        store,
        tmp_path / "out",
        truth_levels="type",
        overrides=SHORTEST | {"labels": True},
        progress=False,
    )
    assert found.finished
    assert load_recipe(found.run / "recipe.yaml").objectives.labels > 0
    head = [load_model(path)[0].label_head.out.weight for path in (folder / "run", found.run)]
    assert not torch.equal(*head)
    recipe = load_recipe(found.run / "recipe.yaml")
    cells = run_cells(found.run, recipe, [Store.open(folder / OLD), Store.open(store)])
    n_old = Store.open(folder / OLD).n_cells
    assert (cells.collection.labels[n_old:, 0] >= 0).sum() == known.sum()
    learned = np.isin(n_old + np.flatnonzero(known), cells.training_cells).sum()
    scores = found.figures()["coupled_labels"]["levels"]["type"]
    assert scores["cells"] == known.sum() - learned  # all others have no known truth here


@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize("method", ["symbols", "profile"])
def test_rows_by_symbols_and_by_profile(folder: Path, simulation: Simulation, tmp_path: Path, method: str) -> None:
    adata = simulation.cells[NEW].copy()
    pairs = simulation.orthologs[:60]
    symbols = adata.var["symbol"].astype(str).to_numpy(dtype=object)
    old = simulation.cells[OLD].var["symbol"].astype(str)
    symbols[adata.var_names.get_indexer(pairs["gene_b"])] = old[pairs["gene_a"]].str.lower().to_numpy()
    adata.var["symbol"] = symbols
    store = prepared(adata, NEW, tmp_path / "named")
    overrides = SHORTEST | {"rows.method": method}
    found = extend(folder / "run", store, tmp_path / "out", truth_levels="type", overrides=overrides, progress=False)
    assert found.finished
    assert found.facts["recipe"]["rows"]["method"] == method
    assert ("coupled_labels" in found.figures()) == (method == "symbols")
    assert (found.run / "report" / "species_labels.csv").is_file() == (method == "symbols")
    confidence = np.load(found.run / "match_confidence.npy")
    assert confidence.max() == pytest.approx(1 if method == "symbols" else 1 / 15)
    assert (confidence > 0.999).sum() >= (60 if method == "symbols" else 0)


@pytest.mark.usefixtures("no_report")
def test_a_disjoint_panel_of_a_known_species_is_accepted_on_request(
    folder: Path, simulation: Simulation, tmp_path: Path
) -> None:
    adata = simulation.cells[OLD].copy()
    adata.var_names = [f"Other{place}" for place in range(adata.n_vars)]
    adata.var = adata.var[[]]
    store = prepared(adata, OLD, tmp_path / "panel")
    with pytest.raises(InputError, match="--disjoint-panels"):
        extend(folder / "run", store, tmp_path / "out", overrides=SHORTEST, progress=False)
    found = extend(folder / "run", store, tmp_path / "out", disjoint_panels=True, overrides=SHORTEST, progress=False)
    assert found.figures()["genes"]["new"] == adata.n_vars
    lexicon = load_model(found.run)[1].lexicon
    assert lexicon.species == (OLD,)
    assert (np.load(found.run / "match_confidence.npy") > 0).all()


@pytest.mark.usefixtures("no_report")
def test_too_few_cells_are_told_and_one_is_refused(folder: Path, simulation: Simulation, tmp_path: Path) -> None:
    few = prepared(simulation.cells[NEW][:16].copy(), NEW, tmp_path / "few")
    found = extend(folder / "run", few, tmp_path / "out", overrides=SHORTEST, progress=False)
    assert any("not coupled: that needs 20 cells" in note for note in found.notes)
    assert "coupled_labels" not in found.figures()
    one = prepared(simulation.cells[NEW][:1].copy(), NEW, tmp_path / "one")
    with pytest.raises(InputError, match="1 cell"):
        extend(folder / "run", one, tmp_path / "out1", overrides=SHORTEST, progress=False)


def test_another_store_in_the_old_one_s_place_is_refused(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(folder / "run", run)
    facts = read_json(run / "run.json")
    facts["stores"][0]["path"] = str(folder / NEW)
    (run / "run.json").write_text(json.dumps(facts))
    with pytest.raises(InputError, match=r"this is not the store that .* was trained on: its fingerprint is"):
        extend(run, folder / NEW, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()
