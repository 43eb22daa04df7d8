import json

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from lexicell.data.store import Store
from lexicell.data.store_writer import Part, StoreWriter
from lexicell.errors import InputError
from lexicell.genes.lexicon import Lexicon
from lexicell.workflows.store_inspection import store_export, store_info, store_verify


@pytest.fixture
def path(tmp_path):
    """A store of two files: 30 cells with all 8 genes, and 10 cells that measured 5 of them."""
    rng = np.random.default_rng(0)
    lexicon = Lexicon.from_genes("mus_musculus", [f"g{i}" for i in range(8)])
    out = tmp_path / "store"
    with StoreWriter(out, lexicon, ("type",)) as writer:
        for name, n, panel in (("a", 30, np.arange(8)), ("b", 10, np.arange(5))):
            counts = np.zeros((n, 8), dtype=np.int32)
            counts[:, panel] = rng.poisson(2, (n, len(panel)))
            obs = pd.DataFrame(
                {"donor": [f"{name}{i % 2}" for i in range(n)], "type": [f"t{i % 15}" for i in range(n)]},
                index=[f"{name}-{i}" for i in range(n)],
            )
            writer.add(Part(name, "mus_musculus", panel), [sparse.csr_matrix(counts)], obs)
        writer.finish()
    return out


def test_info_counts_cells_by_file_and_group(path):
    info = store_info(path)
    assert info.summary["cells"] == 40
    assert info.sources["cells"].tolist() == [30, 10]
    assert info.sources["genes_measured"].tolist() == [8, 5]
    assert info.groups["donor"].to_dict() == {"a0": 15, "a1": 15, "b0": 5, "b1": 5}
    assert info.groups["species"].to_dict() == {"mus_musculus": 40}
    figures = json.loads(json.dumps(info.figures()))
    assert figures["groups"]["type"]["t0"] == 3
    assert store_info(Store.open(path)).figures() == info.figures()


def test_long_groups_are_cut_with_a_count(path):
    table = next(t for t in store_info(path).tables() if t.title.startswith("type"))
    assert table.title == "type (15)"
    assert table.rows[-1][0] == "and 4 more"
    assert sum(row[1] for row in table.rows) == 40


def test_verify_finds_a_flipped_byte(path):
    whole = store_verify(path)
    assert whole.problems == ()
    assert whole.exit_code == 0
    assert whole.figures()["whole"] is True
    damaged = path / "counts.npy"
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    check = store_verify(path)
    assert check.exit_code == 2
    assert any("counts.npy" in problem for problem in check.problems)
    assert len(check.tables()[0].rows) == len(check.problems)


def test_export_gives_the_cells_back(path, tmp_path):
    out = tmp_path / "cells.h5ad"
    done = store_export(path, out)
    adata = ad.read_h5ad(out)
    assert (done.cells, done.genes) == adata.shape == (40, 8)
    assert (adata.X != Store.open(path).to_anndata().X).nnz == 0
    with pytest.raises(InputError, match="stands there already"):
        store_export(path, out)
    assert store_export(path, out, overwrite=True).cells == 40


def test_export_of_a_query(path, tmp_path):
    out = tmp_path / "cells.h5ad"
    done = store_export(path, out, where="donor == 'a1' and depth > 0")
    assert done.cells == 15
    assert set(ad.read_h5ad(out).obs["donor"]) == {"a1"}
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("where", "part"),
    [
        ("donor == 'nobody'", "none of the 40 cells"),
        ("donors == 'a1'", "the columns are"),
        ("donor == ", "cannot be used"),
        ("@__import__('os')", "may only compare"),
    ],
)
def test_queries_that_do_not_serve_are_refused(path, tmp_path, where, part):
    with pytest.raises(InputError, match=part):
        store_export(path, tmp_path / "cells.h5ad", where=where)
    assert not (tmp_path / "cells.h5ad").exists()


def test_a_missing_folder_or_store_is_refused(path, tmp_path):
    with pytest.raises(InputError, match="there is no folder"):
        store_export(path, tmp_path / "none" / "cells.h5ad")
    with pytest.raises(InputError, match="ends in"):
        store_export(path, tmp_path / "cells.csv")
    for function in (store_info, store_verify):
        with pytest.raises(InputError, match=r"not a store|no such"):
            function(tmp_path)
