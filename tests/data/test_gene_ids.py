import pandas as pd
import pytest

from lexicell.data.gene_ids import AMBIGUOUS, MATCHED, NO_GENE, UNMATCHED, match_genes
from lexicell.errors import InputError
from lexicell.genes.annotations import GeneAnnotations
from lexicell.genes.species import find_species

MOUSE = find_species("mouse")
IDS = [f"ENSMUSG{i:011d}" for i in range(6)]
SYMBOLS = ["Gad1", "Gad2", "Sst", "Vip", "Mog", "Aqp4"]


def frame(index, **columns):
    return pd.DataFrame(columns, index=pd.Index(index, dtype=object))


def test_ids_in_the_index():
    match = match_genes("f", frame([f"{name}.2" for name in IDS], gene_symbol=SYMBOLS), MOUSE)
    assert match.ids == IDS
    assert match.symbols == SYMBOLS
    assert match.notes == ("gene ids from the index",)
    assert (match.report.n_matched, match.report.n_genes) == (6, 6)


@pytest.mark.parametrize("column", ["gene_ids", "anything"])
def test_ids_in_a_column_are_found_by_their_pattern(column):
    match = match_genes("f", frame(SYMBOLS, **{column: IDS}), MOUSE)
    assert match.ids == IDS
    assert match.symbols == SYMBOLS
    assert match.notes == (f"gene ids from column '{column}'",)
    assert match_genes("f", frame(SYMBOLS, **{column: IDS}), MOUSE, gene_ids="index").ids == SYMBOLS


def test_ids_without_a_known_pattern_are_found_by_the_column_name():
    bat = find_species("Myotis myotis")
    match = match_genes("f", frame(SYMBOLS, gene_id=[f"LOC{i}" for i in range(6)]), bat)
    assert match.ids[0] == "LOC0"
    assert match.symbols == SYMBOLS
    repeated = match_genes("f", frame(SYMBOLS, gene_id=["LOC1"] * 6), bat)
    assert repeated.ids == SYMBOLS


def test_other_features_are_no_genes():
    types = ["Gene Expression"] * 4 + ["Peaks", "Antibody Capture"]
    match = match_genes("f", frame(SYMBOLS, feature_types=types), MOUSE)
    assert match.ids[3:] == ["Vip", None, None]
    assert match.status.tolist() == [MATCHED] * 4 + [NO_GENE] * 2
    assert match.report.n_genes == 4


def test_missing_ids_are_unmatched_and_duplicates_counted():
    match = match_genes("f", frame(["a", "b", "c"], gene_id=["x", None, "x"]), MOUSE, gene_ids="gene_id")
    assert match.ids == ["x", None, "x"]
    assert match.status.tolist() == [MATCHED, UNMATCHED, MATCHED]
    assert (match.report.n_matched, match.report.n_unmatched, match.report.n_duplicates) == (2, 1, 1)


@pytest.fixture
def table():
    return GeneAnnotations(
        pd.DataFrame({"gene_id": IDS, "symbol": ["Gad1", "Gad2", "Sst", "Twin", "Twin", "Mog"]}), "mouse"
    )


def test_names_become_ids_through_a_table(table):
    names = ["Gad1", "GAD2", "Twin", "EGFP", "Mog"]
    match = match_genes("f", frame(names), MOUSE, annotations=table)
    assert match.ids == [IDS[0], IDS[1], None, None, IDS[5]]
    assert match.symbols[1] == "Gad2"
    assert match.status.tolist() == [MATCHED, MATCHED, AMBIGUOUS, UNMATCHED, MATCHED]
    kept = match_genes("f", frame(names), MOUSE, annotations=table, keep_unmatched=True)
    assert kept.ids == [IDS[0], IDS[1], None, "EGFP", IDS[5]]
    assert kept.report.n_unmatched == 1


def test_the_column_that_the_table_knows_best_is_taken(table):
    match = match_genes("f", frame(["p1", "p2", "p3"], other=["q1", "q2", "q3"], gene_name=SYMBOLS[:3]), MOUSE,
                        annotations=table)  # fmt: skip
    assert match.ids == IDS[:3]


def test_another_species_in_capitals_is_noticed(table):
    match = match_genes("f", frame(["GAD1", "GAD2", "SST"]), MOUSE, annotations=table)
    assert "only without regard to case" in match.notes[-1]


@pytest.mark.parametrize(
    ("var", "options", "message"),
    [
        (frame([]), {}, "holds no genes"),
        (frame([1, 2]), {}, "the gene names are numbers"),
        (frame(["a", 2]), {}, "mix text with other things"),
        (frame(["0", "1"]), {}, "are row numbers"),
        (frame(["a", "b"]), {"gene_ids": "x"}, "no column 'x'"),
        (frame(["a", "b"]), {"symbols": "x"}, "symbols: no column 'x'"),
        (frame([f"ENSG{i:011d}" for i in range(9)]), {}, "those of homo_sapiens"),
        (frame([*IDS, "Gad1"]), {}, "86% of the gene names"),
    ],
)
def test_faults(var, options, message):
    with pytest.raises(InputError, match=message):
        match_genes("f", var, MOUSE, **options)


def test_mixed_names_may_be_taken_as_they_are():
    assert match_genes("f", frame([*IDS, "Gad1"]), MOUSE, gene_ids="index").ids == [*IDS, "Gad1"]


def test_too_few_matches_are_refused_with_remedies(table):
    with pytest.raises(InputError, match=r"25.0% of the genes.*\(1\) the species .*\(2\) the ids .*\(3\) the table"):
        match_genes("f", frame(["Gad1", "x", "y", "z"]), MOUSE, annotations=table)
    match_genes("f", frame(["Gad1", "x", "y", "z"]), MOUSE, annotations=table, min_matched=0.2)
