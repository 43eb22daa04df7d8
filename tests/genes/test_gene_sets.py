import gzip
import os
from pathlib import Path

import numpy as np
import pytest

from lexicell.errors import InputError
from lexicell.genes.gene_sets import read_gene_sets

DATA = os.environ.get("LEXICELL_DATA")
GMT = "GO:1\tfirst\tIns2\tGcg\tIns2\t\nGO:2\tsecond\tSst\n\nGO:3\t\tNeverMeasured\tGcg\tPpy\n"


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "go_bp.gmt"
    file.write_text(GMT, encoding="utf-8")
    return file


def test_sets_are_read_in_order_with_each_gene_once(path):
    sets = read_gene_sets(path)
    assert sets.name == "go_bp"
    assert [one.name for one in sets] == ["GO:1", "GO:2", "GO:3"]
    assert sets["GO:1"].genes == ("Ins2", "Gcg")
    assert sets["GO:1"].description == "first"
    with pytest.raises(KeyError):
        sets["GO:4"]


def test_gzip_is_read_too(path, tmp_path):
    zipped = tmp_path / "go_bp.gmt.gz"
    zipped.write_bytes(gzip.compress(path.read_bytes()))
    assert read_gene_sets(zipped) == read_gene_sets(path)


def test_membership_is_a_matrix_of_sets_and_genes(path):
    member = read_gene_sets(path).membership(["Gcg", "Ins2", "Actb", "Gcg"])
    assert member.dtype == bool
    np.testing.assert_array_equal(member.toarray(), [[1, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 1]])


def test_case_can_be_ignored(path):
    sets = read_gene_sets(path)
    assert sets.membership(["GCG", "SST"]).nnz == 0
    np.testing.assert_array_equal(sets.membership(["GCG", "SST"], ignore_case=True).toarray(), [[1, 0], [0, 1], [1, 0]])


def test_sets_are_kept_by_size(path):
    sets = read_gene_sets(path)
    assert [one.name for one in sets.of_size(2)] == ["GO:1", "GO:3"]
    assert [one.name for one in sets.of_size(1, 2)] == ["GO:1", "GO:2"]


def test_all_broken_lines_are_reported(tmp_path):
    path = tmp_path / "broken.gmt"
    path.write_text("one\tx\tA\nno tabs here\none\ty\tB\ntwo\tempty\t\n", encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_gene_sets(path)
    for part in ("line 2", "line 3: the name 'one' was used on line 1", "line 4"):
        assert part in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\x1f\x8bnot gzip", b"\xff\xfe\x00"])
def test_files_that_are_no_gmt_are_refused(tmp_path, content):
    path = tmp_path / "file.gmt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=str(path)):
        read_gene_sets(path)


@pytest.mark.skipif(not DATA, reason="LEXICELL_DATA names no folder of real data")
def test_real_collections_are_read():
    folder = Path(DATA or "") / "genesets"
    sizes = {file.name: len(read_gene_sets(file)) for file in sorted(folder.glob("*.gmt.gz"))}
    assert sizes["reactome_mouse_symbols_tosica.gmt.gz"] == 1246
    assert min(sizes.values()) >= 50
