import gzip

import pandas as pd
import pytest

from lexicell.errors import InputError
from lexicell.genes.annotations import GeneAnnotations
from lexicell.genes.lexicon import Lexicon


@pytest.fixture
def genes():
    table = pd.DataFrame(
        {
            "gene_id": ["ENSMUSG00000000001.4", "ENSMUSG00000000002", "ENSMUSG00000000003", "ENSMUSG00000000004"],
            "symbol": ["Gnai3", "Twin", "Twin", ""],
            "aliases": ["Gna|Old1", "", "Old2; Old1", "Rare,Odd"],
        }
    )
    return GeneAnnotations(table, "mouse")


def test_names_of_every_kind_are_found(genes):
    names = ["ENSMUSG00000000001.9", "Gnai3", "Gna", "gnai3", "ensmusg00000000004", "Odd", "OLD2"]
    found = genes.resolve(names)
    assert found.rows.tolist() == [0, 0, 0, 0, 3, 3, 2]
    assert found.ids[0] == "ENSMUSG00000000001"
    assert dict(found.report.by) == {
        "id": 1, "symbol": 1, "alias": 2, "id, case aside": 1, "symbol, case aside": 1, "alias, case aside": 1,
    }  # fmt: skip
    assert found.report.n_duplicates == 4


def test_ambiguous_and_unknown_names_are_reported_and_not_guessed(genes):
    found = genes.resolve(["Twin", "Old1", "Nobody", "Gnai3"])
    assert found.rows.tolist() == [-2, -2, -1, 0]
    assert found.ids == [None, None, None, "ENSMUSG00000000001"]
    report = found.report
    assert (report.n_genes, report.n_matched, report.n_ambiguous, report.n_unmatched) == (4, 1, 2, 1)
    assert report.examples_ambiguous == ("Twin", "Old1")
    assert report.examples_unmatched == ("Nobody",)
    assert report.gene_share == 0.25
    counted = report.with_counts(50, 30, 20)
    assert (counted.count_share, counted.ambiguous_count_share, counted.unmatched_count_share) == (0.5, 0.3, 0.2)
    assert "50.0% of the counts" in counted.summary()
    assert counted.rows()[1] == ("genes matched", "1, 50.0% of the counts")
    assert counted.figures()["n_unmatched"] == 1


def test_nothing_to_resolve(genes):
    report = genes.resolve([]).report
    assert (report.n_genes, report.gene_share) == (0, 0.0)
    assert report.with_counts(0, 0, 0).count_share == 0.0


def test_tables_are_read_with_usual_column_names(tmp_path):
    path = tmp_path / "genes.tsv.gz"
    with gzip.open(path, "wt") as handle:
        handle.write("Ensembl_ID\tGene_Name\tchromosome\tstart\tend\nENSRFEG00000000001\tFOXP2\t7\t10\t20\n")
    genes = GeneAnnotations.load(path, "greater horseshoe bat")
    assert genes.species == "rhinolophus_ferrumequinum"
    assert genes.resolve(["FOXP2"]).ids == ["ENSRFEG00000000001"]
    assert genes.table.loc[0, ["chrom", "start", "end"]].tolist() == ["7", 10, 20]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("symbol\tchrom\nA\t1\n", "no column of gene ids"),
        ("gene_id\tsymbol\n", "holds no gene"),
        ("gene_id\tsymbol\nx\tA\nx\tB\n", "stand more than once: x"),
        ("gene_id\tsymbol\n\tA\n", "1 rows have no gene id"),
        ("", "cannot be read"),
    ],
)
def test_unusable_tables_are_refused(tmp_path, content, message):
    path = tmp_path / "genes.tsv"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        GeneAnnotations.load(path, "mouse")


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(InputError, match="no such gene table"):
        GeneAnnotations.load(tmp_path / "none.tsv", "mouse")


def test_a_lexicon_serves_as_table():
    lexicon = Lexicon.from_genes("human", ["h1"]).extend(Lexicon.from_genes("mouse", ["m1", "m2"], ["A", "B"]).table)
    genes = GeneAnnotations.from_lexicon(lexicon, "mouse")
    assert lexicon.rows_of("mouse")[genes.resolve(["B", "m1"]).rows].tolist() == [2, 1]
    with pytest.raises(InputError, match="not in the lexicon"):
        GeneAnnotations.from_lexicon(lexicon, "zebrafish")
