import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import yaml
from allen_mirror import RELEASE, write_2021, write_manifest

from lexicell.data.readers import gene_major
from lexicell.datasets import download, registry
from lexicell.datasets.abc_atlas import ALLEN_2023, collection_of, region_of
from lexicell.datasets.allen_portal import ALLEN_2021
from lexicell.datasets.cache import cache_folder, sha256_of
from lexicell.datasets.hosted import joined
from lexicell.errors import InputError
from lexicell.workflows.prepare import prepare
from lexicell.workflows.public_data import get_data, list_data

CELL_TABLE = f"metadata/WMB-10X/{RELEASE}/cell_metadata.csv"
TERMS = f"metadata/WMB-taxonomy/{RELEASE}/cluster_to_cluster_annotation_membership.csv"
HPF = "expression_matrices/WMB-10Xv2/20230630/WMB-10Xv2-HPF-raw.h5ad"
MANIFEST = f"releases/{RELEASE}/manifest.json"


def get(name, **options):
    said = []
    paths = registry.get(name, announce=said.append, **options)
    return paths, said


def folder_of(name):
    return cache_folder() / "datasets" / name


def fetched(server):
    """Paths whose content was asked for."""
    return {path for method, path, _ in server.asked if method == "GET"}


def test_from_a_name_to_a_store_2023(atlas_2023, server, tmp_path):
    paths, said = get("allen-2023", subset=["Isocortex", "hpf"])
    folder = folder_of("allen-2023")
    assert [path.relative_to(folder).as_posix() for path in paths] == [
        HPF,
        HPF.replace("HPF", "Isocortex-1"),
        "expression_matrices/WMB-10Xv3/20230630/WMB-10Xv3-Isocortex-2-raw.h5ad",
        CELL_TABLE,
        TERMS,
        "corpus.yaml",
    ]
    assert "non-commercial" in said[0]
    assert "CC BY-NC 4.0" in said[0]
    assert said[-1] == f"next: lexicell prepare {paths[-1]} --out STORE"
    result = prepare(paths[-1], tmp_path / "store")
    store = result.store
    assert store.verify() == []
    taken = atlas_2023[atlas_2023.obs["known"] & (atlas_2023.obs["matrix"] != "WMB-10XMulti")]
    assert set(store.obs.index) == set(taken.obs_names)
    assert [source.name for source in store.sources] == [
        "WMB-10Xv2-HPF", "WMB-10Xv2-Isocortex-1", "WMB-10Xv3-Isocortex-2",
    ]  # fmt: skip
    truth = taken[store.obs.index]
    assert (store.to_anndata()[:, truth.var_names].X.toarray() == truth.X.toarray()).all()
    assert store.label_levels == ("class", "subclass", "supertype", "cluster")
    for level in store.label_levels:
        assert store.obs[level].tolist() == truth.obs[f"true_{level}"].tolist()
    assert store.obs["donor"].tolist() == truth.obs["donor"].astype(str).tolist()
    assert set(store.obs["tissue"]) == {"ACA"}
    assert store.obs["assay"].tolist() == [matrix.split("-")[1] for matrix in truth.obs["matrix"]]
    assert set(store.obs["neurotransmitter"]) == {"NA"}  # the term's name, not a missing value
    assert store.lexicon.table["symbol"].tolist() == [f"Gene{i}" for i in range(truth.n_vars)]
    notes = [source["notes"][-1] for source in result.sources]
    assert notes[0] == "cell annotation from cell_metadata.csv: 3 of 30 cells have no row in it and are left out"


def test_from_a_name_to_a_store_2021(atlas_2021, tmp_path):
    paths, said = get("allen-2021")
    assert [path.name for path in paths] == ["expression_matrix.hdf5", "metadata.csv", "corpus.yaml"]
    assert "non-commercial" in said[0]
    result = prepare(paths[-1], tmp_path / "store")
    store = result.store
    truth = atlas_2021[atlas_2021.obs["known"].to_numpy()]
    assert store.obs.index.tolist() == truth.obs_names.tolist()
    assert (store.to_anndata().X.toarray() == truth.X.toarray()).all()
    assert store.lexicon.table["gene_id"].tolist() == truth.var_names.tolist()
    assert store.label_levels == ("class_label", "subclass_label", "cluster_label")
    assert store.obs["cluster_label"].tolist() == [f"1_{kind}" for kind in truth.obs["type"]]
    assert store.obs["donor"].tolist() == truth.obs["donor"].astype(str).tolist()
    assert set(store.obs["tissue"]) == {"VISp"}
    assert set(store.obs["neighborhood_label"]) == {"CGE"}
    assert "3 of 120 cells have no row in it and are left out" in result.sources[0]["notes"][-1]
    note = json.loads((paths[0].parent / "allen-2021.source.json").read_text())
    counts = note["files"]["expression_matrix.hdf5"]
    assert (counts["sha256"], counts["size"]) == (sha256_of(paths[0]), paths[0].stat().st_size)


@pytest.mark.parametrize("layout", ["cells first", "a gene a chunk", "one chunk", "odd chunks"])
def test_any_layout_of_the_2021_counts_gives_the_same_store(atlas_2021, server, tmp_path, monkeypatch, layout):
    n_genes, n_cells = atlas_2021.n_vars, atlas_2021.n_obs
    chunks = {
        "cells first": (7, n_genes),
        "a gene a chunk": (1, n_cells),
        "one chunk": (n_genes, n_cells),
        "odd chunks": (9, 7),
    }
    write_2021(server.folder, atlas_2021, turned=layout == "cells first", chunks=chunks[layout])
    monkeypatch.setattr(gene_major, "_MAX_WIDTH", 100)
    for name in ("gene_major", "bands", "matrices"):
        monkeypatch.setattr(f"lexicell.data.readers.{name}.BLOCK_ENTRIES", 3000)
    monkeypatch.setattr(gene_major.GeneMajorMatrix.edges, "__defaults__", (3000,))
    paths, _ = get("allen-2021")
    store = prepare(paths[-1], tmp_path / "store").store
    assert (store.to_anndata().X.toarray() == atlas_2021.X.toarray()[atlas_2021.obs["known"].to_numpy()]).all()


def test_what_is_there_is_not_fetched_again(atlas_2023, server):
    get("allen-2023", subset=["HPF"])
    server.asked.clear()
    _, said = get("allen-2023", subset=["HPF"])
    assert said == []
    assert fetched(server) == {MANIFEST}  # a mirror is asked what it has; the default release is not
    get("allen-2023", subset=["Multi"])
    assert fetched(server) == {MANIFEST, "expression_matrices/WMB-10XMulti/20230830/WMB-10XMulti-raw.h5ad"}


def test_the_default_address_is_not_asked_for_what_is_there(atlas_2023, server, monkeypatch):
    monkeypatch.delenv("LEXICELL_ALLEN_2023_URL")
    plan = ALLEN_2023.source.look(server.url, RELEASE)
    files = tuple(replace(file, size=file.size + 1) if file.name == HPF else file for file in plan.files)
    entry = replace(ALLEN_2023, files=files, source=replace(ALLEN_2023.source, url=server.url))
    monkeypatch.setattr(registry, "_ENTRIES", (entry,))
    _, said = get("allen-2023", subset=["HPF"])
    assert any(f"another size of {HPF} than lexicell knows" in line for line in said)
    server.asked.clear()
    assert get("allen-2023", subset=["HPF"])[1] == []
    assert server.asked == []
    assert registry.is_whole(entry) is False
    get("allen-2023")
    assert registry.is_whole(entry) is True
    get("allen-2023", subset=["Multi"])  # nothing to fetch, but another corpus
    note = json.loads((folder_of("allen-2023") / "allen-2023.source.json").read_text())
    assert note["manifest"] == f"{server.url}/{MANIFEST}"
    assert "Isocortex" not in (folder_of("allen-2023") / "corpus.yaml").read_text()


def test_the_mirror_may_change_in_the_middle(atlas_2023, server, tmp_path, monkeypatch):
    size = (server.folder / HPF).stat().st_size
    server.cuts[HPF] = [size // 2]
    with monkeypatch.context() as patch:
        patch.setattr(download, "_TRIES", 1)
        with pytest.raises(InputError, match="cut off"):
            get("allen-2023", subset=["HPF"])
    shutil.copytree(server.folder, server.folder / "moved")
    get("allen-2023", subset=["HPF"], mirror=f"{server.url}/moved/")
    assert ("GET", f"moved/{HPF}", f"bytes={size // 2}-") in server.asked


def test_an_interrupted_download_goes_on(atlas_2023, server, monkeypatch):
    size = (server.folder / HPF).stat().st_size
    server.cuts[HPF] = [size // 2]
    with monkeypatch.context() as patch:
        patch.setattr(download, "_TRIES", 1)
        with pytest.raises(InputError, match=r"cut off after .* bytes are kept in .*HPF-raw\.h5ad\.part"):
            get("allen-2023", subset=["HPF"])
    assert not (folder_of("allen-2023") / HPF).exists()
    assert not (folder_of("allen-2023") / "corpus.yaml").exists()
    server.asked.clear()
    paths, _ = get("allen-2023", subset=["HPF"])
    assert [(path, asked) for _, path, asked in server.asked] == [(MANIFEST, None), (HPF, f"bytes={size // 2}-")]
    assert paths[0].read_bytes() == (server.folder / HPF).read_bytes()


def test_a_changed_manifest(atlas_2023, server, monkeypatch):
    paths, _ = get("allen-2023", subset=["HPF"])
    whole = (server.folder / HPF).read_bytes()
    (server.folder / HPF).write_bytes(whole + b"\0")  # HDF5 does not mind
    paths[0].unlink()
    with pytest.raises(InputError, match=r"has .* bytes on the server; expected"):  # the mirror contradicts itself
        get("allen-2023", subset=["HPF"])
    server.cuts[HPF] = [100]
    monkeypatch.setattr(download, "_TRIES", 1)
    write_manifest(server.folder)
    with pytest.raises(InputError, match="cut off"):
        get("allen-2023", subset=["HPF"])
    (server.folder / HPF).write_bytes(whole + b"\1")
    write_manifest(server.folder)
    server.asked.clear()
    get("allen-2023", subset=["HPF"])
    assert (HPF, None) in [(path, asked) for _, path, asked in server.asked]  # the 100 bytes were of another file
    (server.folder / HPF).write_bytes(whole)
    write_manifest(server.folder)
    _, said = get("allen-2023", subset=["HPF"])
    assert any("lists another version of it by now" in line for line in said)
    assert paths[0].read_bytes() == whole


def test_a_wrong_checksum(atlas_2023, server):
    manifest = server.folder / MANIFEST
    content = json.loads(manifest.read_text())
    entry = content["file_listing"]["WMB-10Xv2"]["expression_matrices"]["WMB-10Xv2-HPF"]["raw"]["files"]["h5ad"]
    entry["file_hash"] = "0" * 32
    manifest.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"HPF-raw\.h5ad: what came is not the file .* expected 0000"):
        get("allen-2023", subset=["HPF"])
    folder = folder_of("allen-2023")
    assert not (folder / HPF).exists()
    assert not (folder / "corpus.yaml").exists()
    assert (folder / CELL_TABLE).exists()  # what came whole is kept


def test_a_missing_file(atlas_2023, atlas_2021, server):
    (server.folder / HPF).unlink()
    with pytest.raises(InputError, match=r"HPF-raw\.h5ad: the server says 404"):
        get("allen-2023", subset=["HPF"])
    (server.folder / "metadata.csv").unlink()
    with pytest.raises(InputError, match=r"metadata\.csv: the server says 404"):
        get("allen-2021")


MANIFESTS = {
    "gone": (None, "404"),
    "no JSON": (lambda m: "<html>", "is not a manifest that lexicell can read"),
    "another shape": (lambda m: "[1]", "is not a manifest that lexicell can read"),
    "no counts": (lambda m: {k: v for k, v in m.items() if "10Xv" not in k and "Multi" not in k}, "lacks 'WMB-10Xv2'"),
    "no taxonomy": (lambda m: {k: v for k, v in m.items() if k != "WMB-taxonomy"}, "lacks 'WMB-taxonomy'"),
    "no checksum": (lambda m: json.loads(json.dumps(m).replace('"file_hash": "', '"file_hash": "x')), "no path, size"),
    "paths that lead out": (
        lambda m: json.loads(json.dumps(m).replace("expression_matrices/WMB-10Xv2", "../../WMB-10Xv2")),
        "does not lie below it",
    ),
}


@pytest.mark.parametrize("kind", MANIFESTS)
def test_broken_manifests(atlas_2023, server, kind):
    change, message = MANIFESTS[kind]
    path = server.folder / MANIFEST
    content = json.loads(path.read_text())
    if change is None:
        path.unlink()
    else:
        changed = change(content["file_listing"])
        path.write_text(changed if isinstance(changed, str) else json.dumps({**content, "file_listing": changed}))
    with pytest.raises(InputError, match=message):
        get("allen-2023")
    assert not folder_of("allen-2023").exists()


def test_another_release(atlas_2023, server):
    shutil.copytree(
        server.folder / "metadata" / "WMB-10X" / RELEASE, server.folder / "metadata" / "WMB-10X" / "20241115"
    )
    write_manifest(server.folder, "20250531")
    paths, _ = get("allen-2023", subset=["HPF"], release="20250531")
    assert paths[1].parent.name == "20241115"
    assert "20241115" in paths[-1].read_text()
    note = json.loads((folder_of("allen-2023") / "allen-2023.source.json").read_text())
    assert note["release"] == "20250531"
    assert note["manifest_sha256"] == sha256_of(server.folder / "releases" / "20250531" / "manifest.json")
    with pytest.raises(InputError, match="404"):
        get("allen-2023", release="20990101")
    with pytest.raises(InputError, match="expected a date such as 20231215, got 'latest'"):
        get("allen-2023", release="latest")
    with pytest.raises(InputError, match="has no releases"):
        get("allen-2021", release="20231215")
    with pytest.raises(InputError, match="simulated: has no releases"):
        get("simulated", release="20231215")


def test_unknown_parts_and_addresses(atlas_2023, monkeypatch):
    with pytest.raises(
        InputError, match=r"no such part: Cortex; --subset takes among HPF, Isocortex, Multi \(or single"
    ):
        get("allen-2023", subset=["Cortex"])
    assert get("allen-2023", subset=["WMB-10Xv2-HPF"])[0][0].name == "WMB-10Xv2-HPF-raw.h5ad"
    for address in ("ftp://host/x", "host", "file:///data"):
        with pytest.raises(InputError, match="expected an address such as"):
            get("allen-2023", mirror=address)
    with pytest.raises(InputError, match="simulated: has no address"):
        get("simulated", mirror="http://127.0.0.1:1")


def test_a_full_disk_is_told_before_the_download(atlas_2023, server, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(InputError, match=r"disk too full: allen-2023 needs .* MB.*--subset"):
        get("allen-2023", subset=["HPF"])
    assert fetched(server) == {MANIFEST}


def test_a_dry_run_tells_sizes_without_a_server(monkeypatch, tmp_path):
    monkeypatch.setenv("LEXICELL_CACHE", str(tmp_path / "cache"))
    for variable in ("LEXICELL_ALLEN_2021_URL", "LEXICELL_ALLEN_2023_URL"):
        monkeypatch.delenv(variable, raising=False)
    result = get_data("allen-2023", subset=["Isocortex", "HPF"], dry_run=True)
    sizes = {file["path"]: file["bytes"] for file in result.figures()["files"]}
    assert len(sizes) == 6 + 2 + 2 + 1
    assert sum(sizes.values()) == pytest.approx(69.7e9, rel=0.01)
    assert result.tables()[0].rows[-1][0] == "together"
    assert get_data("allen-2021", dry_run=True).paths[0].name == "expression_matrix.hdf5"
    assert not (tmp_path / "cache").exists()
    assert {"allen-2021", "allen-2023"} <= {row[0] for row in list_data().tables()[0].rows}


def test_a_dry_run_on_a_mirror_asks_it(atlas_2023, server):
    result = get_data("allen-2023", subset=["HPF"], dry_run=True)
    assert result.figures()["files"][0]["bytes"] == (server.folder / HPF).stat().st_size
    assert not cache_folder().exists()


def test_the_default_release_is_known():
    entries = {file.also[0]: file for file in ALLEN_2023.files if file.also}
    assert len(entries) == 24
    assert ALLEN_2023.parts == ("CTXsp", "HPF", "HY", "Isocortex", "MB", "OLF", "TH", "CB", "MY", "P", "PAL", "STR",
                                "Multi")  # fmt: skip
    assert entries["WMB-10XMulti"].name == "expression_matrices/WMB-10XMulti/20230830/WMB-10XMulti-raw.h5ad"
    assert (region_of("WMB-10Xv3-P"), collection_of("WMB-10Xv3-P")) == ("P", "WMB-10Xv3")
    for entry in (ALLEN_2021, ALLEN_2023):
        assert joined(entry.source.url, entry.files[0].name).startswith("https://")


def test_a_users_own_files_and_corpus_are_left_alone(atlas_2023, server, tmp_path):
    mine = tmp_path / "mine"
    (mine / HPF).parent.mkdir(parents=True)
    (mine / HPF).write_bytes(b"precious")
    with pytest.raises(InputError, match=r"HPF-raw\.h5ad: already there"):
        get("allen-2023", subset=["HPF"], to=mine)
    assert (mine / HPF).read_bytes() == b"precious"
    shutil.copyfile(server.folder / HPF, mine / HPF)  # as another tool would have put it
    server.asked.clear()
    paths, _ = get("allen-2023", subset=["HPF"], to=mine)
    assert HPF not in fetched(server)
    changed = paths[-1].read_text() + "# mine\n"
    paths[-1].write_text(changed)
    _, said = get("allen-2023", subset=["HPF"], to=mine)
    assert paths[-1].read_text() == changed
    assert any("corpus.new.yaml" in line for line in said)
    datasets = yaml.safe_load((mine / "corpus.new.yaml").read_text())["datasets"]
    assert [dataset["name"] for dataset in datasets] == ["WMB-10Xv2-HPF"]


def test_a_damaged_file_is_fetched_again(atlas_2023, server):
    paths, _ = get("allen-2023", subset=["HPF"])
    whole = paths[0].read_bytes()
    paths[0].write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    _, said = get("allen-2023", subset=["HPF"])
    assert any("damaged" in line for line in said)
    assert paths[0].read_bytes() == whole


def test_another_file_than_that_of_the_first_download_is_told(atlas_2021, server):
    paths, _ = get("allen-2021")
    paths[1].unlink()
    table = pd.read_csv(server.folder / "metadata.csv")
    table.iloc[::-1].to_csv(server.folder / "metadata.csv", index=False)
    _, said = get("allen-2021")
    assert any("metadata.csv: not the file of the first download" in line for line in said)


@pytest.mark.parametrize(
    ("name", "path", "text", "message"),
    [
        ("allen-2021", "metadata.csv", "a,b\n1,2\n", "expected the columns 'sample_name' and class_label"),
        ("allen-2023", CELL_TABLE, "a,b\n1,2\n", "expected the columns 'cell_label' and 'cluster_alias'"),
        ("allen-2023", TERMS, "a,b\n1,2\n", "has no column cluster_alias"),
        (
            "allen-2023",
            TERMS,
            "cluster_alias,cluster_annotation_term_name,cluster_annotation_term_set_name\n1,a,other\n",
            "names none of the levels class",
        ),
    ],
)
def test_tables_of_another_shape_are_refused(request, server, name, path, text, message):
    request.getfixturevalue(name.replace("allen-", "atlas_"))
    (server.folder / path).write_text(text)
    if name == "allen-2023":
        write_manifest(server.folder)
    with pytest.raises(InputError, match=message):
        get(name)


def test_tables_of_an_older_release(atlas_2023, server, tmp_path):
    path = server.folder / CELL_TABLE
    table = pd.read_csv(path, dtype=str)
    table[["cell_label", "cluster_alias"]].to_csv(path, index=False)  # neither donor nor region
    write_manifest(server.folder)
    paths, _ = get("allen-2023", subset=["HPF"])
    store = prepare(paths[-1], tmp_path / "store").store
    assert "donor" not in store.columns
    assert set(store.obs["tissue"]) == {"HPF"}


def test_counts_of_another_shape(atlas_2021, server, tmp_path):
    import h5py

    paths, _ = get("allen-2021")
    with h5py.File(paths[0], "a") as file:
        del file["data/gene"]
        file["data/gene"] = np.array(["a", "b"], dtype="S")
    with pytest.raises(InputError, match="there are 2 genes and 120 samples"):
        prepare(paths[-1], tmp_path / "store")
    with h5py.File(paths[0], "a") as file:
        del file["data/samples"]
    with pytest.raises(InputError, match="data lacks samples"):
        prepare(paths[-1], tmp_path / "store")
