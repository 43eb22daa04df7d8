from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from anndata import read_h5ad, read_zarr
from sklearn.metrics import roc_auc_score

from lexicell.data.cells import covariate_levels, merge_lexicons
from lexicell.data.store import Store
from lexicell.datasets.simulate import Simulation, SimulationConfig, simulate
from lexicell.errors import InputError
from lexicell.inference.cell_model import CellModel
from lexicell.model.checkpoint import ModelSpec
from lexicell.reporting.gene_sections import contextual_section
from lexicell.reporting.run_tables import RunTables
from lexicell.reporting.text import print_tables
from lexicell.workflows import genes_contextual_groups
from lexicell.workflows.genes_coherence import genes_coherence
from lexicell.workflows.genes_contextual import genes_contextual
from lexicell.workflows.genes_contrast import genes_contrast
from lexicell.workflows.genes_tissue import genes_tissue
from lexicell.workflows.prepare import prepare
from lexicell.workflows.species_groups import read_groups

SPECIES = "simulus_albus"


@pytest.fixture(scope="module")
def gmt(stores: list[Store], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty sets of symbols."""
    symbols, rng = stores[0].lexicon.table["symbol"].to_numpy(), np.random.default_rng(0)
    path = tmp_path_factory.mktemp("sets") / "chance.gmt"
    lines = ["\t".join([f"S{i}", "", *rng.choice(symbols, 25, replace=False)]) for i in range(30)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_coherence_stands_beside_its_baselines(
    run: Path, gmt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pd.read_parquet(run / "genes.parquet") if (run / "genes.parquet").is_file() else None
    assert table is None
    model = CellModel.load(run)
    model.gene_table().to_csv(tmp_path / "mine.csv", index=False)
    found = genes_coherence(
        run,
        gmt,
        species=SPECIES,
        embeddings=[tmp_path / "mine.csv"],
        probes=gmt,
        least=5,
        out=tmp_path / "out",
        progress=False,
    )
    figures = json.loads(json.dumps(found.figures()))
    methods = {"lexicell", "mine", "pca", "coexpression", "expression", "random"}
    assert set(figures["collections"]["chance"]) == methods
    assert all(0.3 < value < 0.7 for value in figures["collections"]["chance"].values())
    assert set(found.probes["method"]) == methods
    assert {path.name for path in found.written} == {path.name for path in (tmp_path / "out").iterdir()}
    assert (tmp_path / "out" / "genes_coherence.svg").read_text().startswith("<svg")
    again = genes_coherence(run, gmt, species=SPECIES, table="both", least=5, out=tmp_path / "again", progress=False)
    for method in ("pca", "coexpression", "random"):  # draws do not depend on what else is judged
        assert again.figures()["collections"]["chance"][method] == figures["collections"]["chance"][method]
    print_tables(found.tables())
    assert "nearness recovers gene sets" in capsys.readouterr().out


def test_coherence_refuses_what_it_cannot_judge(run: Path, cell_model: CellModel, gmt: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="which species"):
        genes_coherence(run, gmt, progress=False)
    with pytest.raises(InputError, match="which cells"):
        genes_coherence(cell_model, gmt, species=SPECIES, progress=False)
    with pytest.raises(InputError, match="no set has 10 to 500"):
        genes_coherence(run, gmt, species="simulus_niger", progress=False)
    with pytest.raises(InputError, match="different names"):
        genes_coherence(run, [gmt, gmt], species=SPECIES, progress=False)
    bad = tmp_path / "probes.tsv"
    bad.write_text("task\tgene\tlabel\nx\tAlbu1\tyes\n", encoding="utf-8")
    with pytest.raises(InputError, match="labels 1 and 0"):
        genes_coherence(run, gmt, species=SPECIES, probes=bad, progress=False)
    with pytest.raises(InputError, match="gene_id or symbol"):
        genes_coherence(run, gmt, species=SPECIES, embeddings=[bad], progress=False)


def test_probes_are_read_from_a_table(run: Path, gmt: Path, stores: list[Store], tmp_path: Path) -> None:
    symbols = stores[0].lexicon.table["symbol"].to_numpy()
    probes = tmp_path / "probes.tsv"
    rows = [f"half\t{name}\t{i % 2}" for i, name in enumerate(symbols[:200])]
    probes.write_text("\n".join(["task\tgene\tlabel", *rows]) + "\n", encoding="utf-8")
    found = genes_coherence(run, gmt, species=SPECIES, probes=probes, least=5, out=tmp_path, progress=False)
    assert (found.probes["positives"] + found.probes["negatives"]).max() <= 200


def test_contextual_embeddings_are_written(cell_model: CellModel, store: Store, tmp_path: Path) -> None:
    done = genes_contextual(cell_model, store.path, by="class", out=tmp_path / "c.h5ad", progress=False)
    adata = read_h5ad(tmp_path / "c.h5ad")
    assert adata.shape == (len(cell_model.lexicon), cell_model.width)
    assert list(adata.obs.columns) == ["species", "gene_id", "symbol"]
    groups = done.groups["group"].tolist()
    assert set(adata.layers) == {f"{kind} {group}" for kind in ("mean", "variance") for group in groups}
    n = adata.obsm["n"]
    whole = (
        sum(n[[g]].to_numpy() * adata.layers[f"mean {g}"] for g in groups)
        / np.maximum(n.sum(axis=1), 1).to_numpy()[:, None]
    )
    np.testing.assert_allclose(adata.X, whole, atol=1e-5)
    counts = store.to_anndata()
    own = counts[(counts.obs["class"] == groups[0]).to_numpy()].X
    index = cell_model.lexicon.map_from(store.lexicon)
    np.testing.assert_array_equal(n[groups[0]].to_numpy()[index], np.diff(own.tocsc().indptr))

    for _ in range(2):  # the second time over the first
        genes_contextual(cell_model, store.path, by="class", out=tmp_path / "c.zarr", progress=False)
    zarr = read_zarr(tmp_path / "c.zarr")
    pd.testing.assert_frame_equal(zarr.obs.astype(str), adata.obs.astype(str))
    pd.testing.assert_frame_equal(zarr.obsm["n"], n)
    for layer in adata.layers:
        np.testing.assert_array_equal(zarr.layers[layer], adata.layers[layer])

    genes_contextual(cell_model, store.path, by="class", out=tmp_path / "c.parquet", progress=False)
    table = pd.read_parquet(tmp_path / "c.parquet")
    assert (table["n"] > 0).all()
    first = table[table["group"] == groups[0]].set_index("gene_id")
    place = adata.obs.reset_index().set_index("gene_id")["gene"].loc[first.index]
    layer = pd.DataFrame(adata.layers[f"mean {groups[0]}"], index=adata.obs_names).loc[place]
    np.testing.assert_allclose(first.filter(regex=r"^m\d").to_numpy(), layer.to_numpy(), atol=1e-6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.h5ad", "c.parquet", "c.zarr"]


def test_groups_are_compared_and_drawn(
    cell_model: CellModel, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, folder = tmp_path / "c.h5ad", tmp_path / "p"
    done = genes_contextual(cell_model, store.path, by="class", out=out, pictures=folder, progress=False)
    assert {path.name for path in done.written} == {path.name for path in folder.iterdir()}
    assert {path.suffix for path in done.written} == {".csv", ".parquet", ".svg", ".png"}
    first = done.genes.iloc[0]
    adata, gene = read_h5ad(out), f"{first['species']}:{first['gene_id']}"
    layers = {(kind, g): adata[gene].layers[f"{kind} {g}"][0] for kind in ("mean", "variance") for g in ("T1", "T2")}
    n = adata.obsm["n"].loc[gene]
    gap = ((layers["mean", "T1"] - layers["mean", "T2"]) ** 2).sum()
    noise = sum(layers["variance", g].sum() / n[g] for g in ("T1", "T2"))
    within = np.mean([layers["variance", g].sum() for g in ("T1", "T2")])
    assert first["spread"] == pytest.approx(np.sqrt((gap - noise) / within), rel=1e-3)
    assert first["distance"] == pytest.approx(first["spread"])
    assert done.genes["spread"].is_monotonic_decreasing
    assert done.distances["genes"].tolist() == [len(done.genes) // 2]  # of genes that both saw ten times
    tables = {
        path.stem: pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path) for path in done.written[:2]
    }
    section = contextual_section(RunTables("run", tables=tables))
    assert section is not None
    assert section.tables[0].rows[0][1] == first["symbol"]
    json.dumps(done.figures())
    print_tables(done.tables())
    assert "differs most between groups" in capsys.readouterr().out


def test_a_run_keeps_the_comparison_where_its_report_looks(
    run: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path(shutil.copytree(run, tmp_path / "run"))  # the run is shared
    done = genes_contextual(run, store.path, by="type", out=tmp_path / "c.parquet", samples=1, progress=False)
    assert len(done.distances) == 6  # pairs of four types
    assert {path.parent for path in done.written} == {run / "report"}
    monkeypatch.setattr(genes_contextual_groups, "MOST_GROUPS", 3)
    monkeypatch.setattr(genes_contextual_groups, "MOST_GENES", 50)
    few = genes_contextual(run, store.path, by="type", out=tmp_path / "c.parquet", samples=1, progress=False)
    assert len(few.groups) == 4
    assert len(few.distances) == 3
    assert few.genes["gene_id"].nunique() <= 50
    alone = genes_contextual(run, store.path, by="type", groups=["T1.1"], out=tmp_path / "c.parquet", progress=False)
    assert (len(alone.distances), alone.written) == (0, ())


def test_contextual_refuses_what_is_not_there(cell_model: CellModel, store: Store, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.h5ad or \.zarr or \.parquet"):
        genes_contextual(cell_model, store.path, by="class", out=tmp_path / "c.csv")
    with pytest.raises(InputError, match="no such column"):
        genes_contextual(cell_model, store.path, by="mood", out=tmp_path / "c.h5ad")
    with pytest.raises(InputError, match="there is no T9"):
        genes_contextual(cell_model, store.path, by="class", groups=["T9"], out=tmp_path / "c.h5ad")
    assert not list(tmp_path.iterdir())
    (tmp_path / "c.zarr").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        genes_contextual(cell_model, store.path, by="class", out=tmp_path / "c.zarr")


@pytest.mark.parametrize("table", ["contextual", "responses", "coexpression"])
def test_groups_of_cells_are_compared(cell_model: CellModel, store: Store, tmp_path: Path, table: str) -> None:
    found = genes_tissue(
        cell_model,
        store.path,
        by="class",
        species=SPECIES,
        table=table,  # type: ignore[arg-type]
        least=3,
        out=tmp_path,
        progress=False,
    )
    assert set(found.genes["species"]) == {SPECIES}
    assert found.genes["n_seen"].min() >= 3
    assert json.loads(json.dumps(found.figures()))["pairs"][0]["genes"] == len(found.genes)
    assert {"genes_tissue.svg", "genes_tissue.png", "genes_tissue.parquet"} <= {p.name for p in tmp_path.iterdir()}
    assert len(found.tables()) == 2


def test_planted_rewired_genes_change_company(cell_model: CellModel, tmp_path: Path) -> None:
    config = SimulationConfig(
        phylogeny="(simulus_albus:0.1,simulus_niger:0.1);",
        n_cells=1600,
        n_genes=400,
        tissues=("cortex", "liver"),
        n_rewired=20,
        n_convergent=0,
        convergent_species=(),
        markers_per_type=3,
    )
    truth = simulate(config)
    dataset = {"adata": truth.cells[SPECIES], "species": SPECIES, "donor": "donor", "tissue": {"obs": "tissue"}}
    prepare({"datasets": [dataset]}, tmp_path / "store", progress=False)
    opened = [Store.open(tmp_path / "store")]
    spec: ModelSpec = replace(
        cell_model.spec, lexicon=merge_lexicons(opened), label_tree=None, covariates=covariate_levels(opened)
    )
    network = spec.build()
    network.initialise(torch.Generator().manual_seed(0))
    found = genes_tissue(
        CellModel(network, spec, device="cpu"), tmp_path / "store", by="tissue", table="coexpression", progress=False
    ).genes
    planted = found["gene_id"].isin(truth.genes.loc[truth.genes["rewired"], "gene_id"])
    assert planted.sum() >= 10
    aurocs = {name: roc_auc_score(planted, found[f"{name}_excess"]) for name in ("displacement", "rbo", "jaccard")}
    assert min(aurocs.values()) > 0.8, aurocs
    assert ((found["displacement_fdr"] <= 0.05) & ~planted).sum() <= 2


def test_tissue_refuses_half_a_pair(cell_model: CellModel, store: Store) -> None:
    with pytest.raises(InputError, match="name two groups"):
        genes_tissue(cell_model, store.path, by="class", pair=("T1", None))
    with pytest.raises(InputError, match="fewer than 20000 cells"):
        genes_tissue(cell_model, store.path, by="class", species=SPECIES, least=5000)


@pytest.fixture(scope="module")
def four() -> Simulation:
    return simulate(SimulationConfig(n_cells=300, n_genes=300, branching=(2, 2), markers_per_type=3, n_convergent=10))


@pytest.fixture(scope="module")
def four_folder(four: Simulation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stores of four species, the truth about them, and groups.yaml."""
    folder = tmp_path_factory.mktemp("four")
    for species, adata in four.cells.items():
        prepare({"datasets": [{"adata": adata, "species": species, "donor": "donor"}]}, folder / species)
    four.orthologs.to_csv(folder / "orthologs.tsv", sep="\t", index=False)
    (folder / "tree.nwk").write_text(four.config.phylogeny, encoding="utf-8")
    groups = {
        "group": ["simulus_albus", "simulus_echo"],
        "others": ["simulus_niger", "simulus_mutus"],
        "tree": "tree.nwk",
        "matches": "orthologs.tsv",
    }
    (folder / "groups.yaml").write_text(yaml.safe_dump(groups), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def four_model(four: Simulation, four_folder: Path, cell_model: CellModel) -> CellModel:
    """An untrained model of the four species."""
    opened = [Store.open(four_folder / species) for species in four.cells]
    spec: ModelSpec = replace(
        cell_model.spec, lexicon=merge_lexicons(opened), label_tree=None, covariates=covariate_levels(opened)
    )
    network = spec.build()
    network.initialise(torch.Generator().manual_seed(0))
    return CellModel(network, spec, device="cpu")


def test_species_groups_are_contrasted(
    four: Simulation, four_folder: Path, four_model: CellModel, tmp_path: Path
) -> None:
    found = genes_contrast(
        four_model,
        four_folder / "groups.yaml",
        store=[four_folder / species for species in four.cells],
        table="coexpression",
        replicates=2,
        out=tmp_path,
        progress=False,
    )
    truth = four.genes[four.genes["species"] == "simulus_albus"].set_index("gene_id")["convergent"]
    planted = truth.loc[found.genes["simulus_albus"]].to_numpy()
    ranks = np.argsort(np.argsort(found.genes["contrast"].to_numpy()))
    n_pos = planted.sum()
    auroc = (ranks[planted].sum() - n_pos * (n_pos - 1) / 2) / (n_pos * (~planted).sum())
    assert auroc > 0.75
    group = four.genes.set_index("gene_id")["orthogroup"]
    for species in list(four.cells)[1:]:
        np.testing.assert_array_equal(
            group.loc[found.genes["simulus_albus"]].to_numpy(), group.loc[found.genes[species]].to_numpy()
        )
    figures = json.loads(json.dumps(found.figures()))
    assert figures["replicates"] == 2
    assert figures["labellings"] == {
        "possible": 6,
        "equivalent": 2,
        "null": 1,
        "keeps_distances": True,
        "sampled": False,
    }
    assert figures["least_p_of_a_gene"] == 0.5
    assert "too coarse to call any gene on its own" in found.power()
    assert figures["similarity_on_distance"]["slope"] < 0
    assert {path.name for path in tmp_path.iterdir()} == {
        "genes_contrast.csv",
        "genes_contrast.svg",
        "genes_contrast.png",
    }


def test_rows_are_contrasted_over_seeds(four: Simulation, four_folder: Path, four_model: CellModel) -> None:
    stores = [four_folder / species for species in four.cells]
    args = {"store": stores, "progress": False}
    found = genes_contrast(four_model, four_folder / "groups.yaml", seeds=[four_model], **args)  # type: ignore[arg-type]
    assert found.replicates == 2
    np.testing.assert_allclose(found.genes["contrast_sd"], 0, atol=1e-12)
    with pytest.raises(InputError, match="1 with --table rows"):
        genes_contrast(four_model, four_folder / "groups.yaml", replicates=2, **args)  # type: ignore[arg-type]


def test_tables_of_genes_match_are_joined(four: Simulation, four_folder: Path, four_model: CellModel) -> None:
    names = list(four.cells)
    entries = []
    for other in names[1:]:
        pairs = four.orthologs[(four.orthologs["species_a"] == names[0]) & (four.orthologs["species_b"] == other)]
        table = pd.DataFrame({"gene_id": pairs["gene_a"], "match_id": pairs["gene_b"], "rank": 1, "mutual": True})
        wrong = table.assign(match_id=table["match_id"].to_numpy()[::-1], rank=2)
        pd.concat([table, wrong]).to_parquet(four_folder / f"{other}.parquet")
        entries.append({"from": names[0], "to": other, "path": f"{other}.parquet"})
    text = yaml.safe_load((four_folder / "groups.yaml").read_text()) | {
        "matches": entries,
        "tree": four.config.phylogeny,
    }
    (four_folder / "matched.yaml").write_text(yaml.safe_dump(text), encoding="utf-8")
    stores = [four_folder / species for species in names]
    by_match = genes_contrast(four_model, four_folder / "matched.yaml", store=stores, progress=False)
    by_table = genes_contrast(four_model, four_folder / "groups.yaml", store=stores, progress=False)
    pd.testing.assert_frame_equal(by_match.genes, by_table.genes)


def test_all_faults_of_a_groups_file_are_told(tmp_path: Path) -> None:
    path = tmp_path / "groups.yaml"
    path.write_text("group: [a]\nothers: [b, b]\ntree: '((b:1,c:1):1'\ncolour: red\n", encoding="utf-8")
    with pytest.raises(InputError) as fault:
        read_groups(path)
    for words in ("unknown key 'colour'", "group: expected a list of 2", "named twice: b", "tree:", "matches:"):
        assert words in str(fault.value)


def test_species_that_the_model_lacks_are_named(four_folder: Path, cell_model: CellModel, store: Store) -> None:
    with pytest.raises(InputError, match="knows no genes of simulus_echo, simulus_mutus"):
        genes_contrast(cell_model, four_folder / "groups.yaml", store=store.path, progress=False)
