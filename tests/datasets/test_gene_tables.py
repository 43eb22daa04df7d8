from __future__ import annotations

import hashlib
import lzma
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

from lexicell.datasets import gene_tables, registry
from lexicell.datasets.entries import DataFile, Dataset
from lexicell.datasets.gene_tables import write_gene_table
from lexicell.datasets.pickled_table import read_pickled_table
from lexicell.datasets.wheel import Member, WheelSource
from lexicell.errors import InputError
from lexicell.genes.annotations import GeneAnnotations
from lexicell.workflows.prepare import prepare

TABLE = pd.DataFrame(
    {
        "gene_name": ["Gad1", "Gad1", "Slc17a7", "Pvalb"],
        "Chromosome": ["2", "2", "7", "15"],
        "Start": np.array([10, 10, 20, 30], np.int32),
        "End": np.array([11, 11, 21, 31], np.int32),
        "Strand": ["+", "+", "-", "+"],
        "gene_biotype": ["protein_coding"] * 4,
        "Previous symbols": ["Gad-1", "Gad-1", None, ""],
        "Alias symbols": ["EP10, Gad67", "EP10, Gad67", "Vglut1", None],
    },
    index=["ENSMUSG00000070880", "ENSMUSG00000070880", "ENSMUSG00000070570", "ENSMUSG00000005716"],
)


class _Ghost:
    """Pickles as a call of a name that pandas 1 had, with arguments and state as it wrote them."""

    def __init__(self, function, args, state=None) -> None:
        self.parts = (function, args) if state is None else (function, args, state)

    def __reduce__(self):
        return self.parts


def old_pickle(table: pd.DataFrame) -> bytes:
    """Return a pickle of a table as pandas 1 wrote it: one block a column, one of them categorical."""
    named = {}

    def known_as(name: str, module: str):
        function = named.setdefault(name, type(name, (), {"__module__": module, "__qualname__": name}))
        return function

    import sys
    import types

    modules = {
        "old_pandas_frame": ("DataFrame",),
        "old_pandas_managers": ("BlockManager",),
        "old_pandas_indexes": ("_new_Index", "Index"),
        "old_pandas_categorical": ("Categorical",),
        "old_pandas_dtypes": ("CategoricalDtype",),
    }
    for module, names in modules.items():
        sys.modules[module] = types.ModuleType(module)
        for name in names:
            setattr(sys.modules[module], name, known_as(name, module))
    try:

        def index(values) -> _Ghost:
            data = np.array(list(values), dtype=object)
            return _Ghost(named["_new_Index"], (named["Index"], {"data": data, "name": None}))

        blocks = []
        for place, name in enumerate(table):
            column = table[name]
            if name == "Chromosome":
                coded = pd.Categorical(column)
                dtype = _Ghost(named["CategoricalDtype"], (index(coded.categories), False))
                state = {"_codes": np.asarray(coded.codes), "_dtype": dtype}
                values = _Ghost(named["Categorical"], (), state)
            else:
                values = column.to_numpy(object if column.dtype.kind not in "if" else None)[None, :]
            blocks.append({"values": values, "mgr_locs": slice(place, place + 1, 1)})
        parts = {"axes": [index(table.columns), index(table.index)], "blocks": blocks}
        manager = _Ghost(named["BlockManager"], (), ([], [], [], {"0.14.1": parts}))
        return pickle.dumps(_Ghost(named["DataFrame"], (), {"_mgr": manager}), protocol=4)
    finally:
        for module in modules:
            del sys.modules[module]


def test_a_table_comes_out_of_a_pickle_without_unpickling() -> None:
    read = read_pickled_table(old_pickle(TABLE), "table")
    assert list(read.columns) == list(TABLE.columns)
    assert list(read.index) == list(TABLE.index)
    for name in TABLE:
        known = TABLE[name].notna().to_numpy()
        assert read[name][known].tolist() == TABLE[name][known].tolist()


def test_a_pickle_is_never_run(tmp_path: Path) -> None:
    attack = pickle.dumps(_Ghost(Path.touch, (tmp_path / "touched",)), protocol=4)
    for content in (attack, pickle.dumps([1]), b"nonsense", b""):
        with pytest.raises(InputError, match="is not a pickled table"):
            read_pickled_table(content, "table")
    assert not (tmp_path / "touched").exists()


def test_a_gene_table_has_one_row_a_gene_and_all_its_names(tmp_path: Path) -> None:
    packed, out = tmp_path / "raw.pkl.xz", tmp_path / "genes.tsv"
    packed.write_bytes(lzma.compress(old_pickle(TABLE)))
    write_gene_table(packed, out)
    genes = GeneAnnotations.load(out, "mouse")
    assert len(genes) == 3
    found = genes.resolve(["Gad67", "Gad-1", "ENSMUSG00000005716.4", "slc17a7", "nothing"])
    assert found.ids == [*["ENSMUSG00000070880"] * 2, "ENSMUSG00000005716", "ENSMUSG00000070570", None]
    packed.write_bytes(b"not xz")
    with pytest.raises(InputError, match="cannot be unpacked"):
        write_gene_table(packed, out)


def test_a_corpus_names_a_table_of_the_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "PIP_CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(name, value)
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CONSTRAINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LEXICELL_CACHE", str(tmp_path / "cache"))
    content = lzma.compress(old_pickle(TABLE))
    wheel = wheels / "tinytables-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tinytables/mouse.pkl.xz", content)
        info = "tinytables-1.0.dist-info"
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tinytables\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    digest = hashlib.sha256(content).hexdigest()
    member = Member("genes-mouse.tsv", ("tinytables/mouse.pkl.xz",), len(content), digest, write_gene_table)
    packed = wheel.read_bytes()
    source = WheelSource("tinytables", "1.0", len(packed), hashlib.sha256(packed).hexdigest(), (member,))
    files = (DataFile("genes-mouse.tsv", "genes", 500),)
    entry = Dataset("genes-mouse", "Three genes", ("Mus musculus",), 0, "CC0", "Nobody 2020", files, source)
    monkeypatch.setattr(registry, "_ENTRIES", (entry,))

    cells = AnnData(sp.csr_matrix(np.eye(3)), var=pd.DataFrame(index=["Gad67", "Slc17a7", "PVALB"]))
    cells.write_h5ad(tmp_path / "cells.h5ad")
    corpus = tmp_path / "corpus.yaml"
    corpus.write_text("datasets:\n  - {path: cells.h5ad, species: mouse, genes: genes-mouse}\n")
    store = prepare(corpus, tmp_path / "store").store
    assert store is not None
    assert store.lexicon.table["gene_id"].tolist() == [TABLE.index[0], TABLE.index[2], TABLE.index[3]]


def test_the_tables_are_registered() -> None:
    names = {entry.name for entry in registry.available()}
    assert {entry.name for entry in gene_tables.GENE_TABLES} == {"genes-mouse", "genes-human"} <= names


@pytest.mark.network
@pytest.mark.slow
def test_the_real_tables(tmp_path: Path) -> None:
    (mouse,) = registry.get("genes-mouse", to=tmp_path / "mouse")
    (human,) = registry.get("genes-human", to=tmp_path / "human")
    assert GeneAnnotations.load(mouse, "mouse").resolve(["Gad1"]).ids == ["ENSMUSG00000070880"]
    assert GeneAnnotations.load(human, "human").resolve(["TM4SF6"]).ids == ["ENSG00000000003"]
