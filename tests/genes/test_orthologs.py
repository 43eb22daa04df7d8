import gzip
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lexicell.datasets.simulate import SimulationConfig, simulate
from lexicell.errors import InputError
from lexicell.genes.orthologs import read_orthologs, shared_symbols

DATA = os.environ.get("LEXICELL_DATA")
WIDE = """mouse_ensembl	mouse_symbol	human_symbol	human_ensembl	type
ENSMUSG00000000001	Ins2	INS	ENSG00000000001	ortholog_one2one
ENSMUSG00000000002	Gcg	GCG	ENSG00000000002	ortholog_one2one
ENSMUSG00000000003	Twice	TWICE1	ENSG00000000003	ortholog_one2one
ENSMUSG00000000003	Twice	TWICE2	ENSG00000000004	ortholog_one2one
ENSMUSG00000000005	Many	MANY	ENSG00000000005	ortholog_one2many
"""
HUB = """species	taxon_id	human_symbol	human_ensembl	symbol	ensembl
Mus musculus	10090	INS	ENSG1	Ins2	ENSMUSG1
Mus musculus	10090	GCG	ENSG2	Gcg	ENSMUSG2
Danio rerio	7955	GCG	ENSG2	gcga	ENSDARG2
Danio rerio	7955	SST	ENSG3	sst1.1	ENSDARG3
"""


def write(tmp_path, text, name="orthologs.tsv"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def genes(*symbols, ids=None):
    return pd.DataFrame({"gene_id": ids or symbols, "symbol": symbols})


def test_a_wide_table_gives_one_to_one_pairs_only(tmp_path):
    table = read_orthologs(write(tmp_path, WIDE), "mouse", "Homo sapiens")
    assert (table.species_a, table.species_b) == ("mus_musculus", "homo_sapiens")
    assert table.pairs["symbol_a"].tolist() == ["Ins2", "Gcg"]
    assert table.pairs["id_b"].tolist() == ["ENSG00000000001", "ENSG00000000002"]


def test_the_species_can_be_asked_for_in_either_order(tmp_path):
    path = write(tmp_path, WIDE)
    straight, turned = read_orthologs(path, "mouse", "human"), read_orthologs(path, "human", "mouse")
    assert straight.pairs["symbol_a"].tolist() == turned.pairs["symbol_b"].tolist()


def test_gzip_and_csv_are_read_too(tmp_path):
    zipped = tmp_path / "table.anything"
    zipped.write_bytes(gzip.compress(WIDE.encode()))
    comma = write(tmp_path, WIDE.replace("\t", ","), "table.csv")
    expected = read_orthologs(write(tmp_path, WIDE), "mouse", "human").pairs
    for path in (zipped, comma):
        pd.testing.assert_frame_equal(read_orthologs(path, "mouse", "human").pairs, expected)


def test_a_hub_table_serves_the_hub_and_pairs_that_meet_there(tmp_path):
    path = write(tmp_path, HUB)
    assert read_orthologs(path, "human", "zebrafish").pairs.values.tolist() == [
        ["ENSG2", "GCG", "ENSDARG2", "gcga"],
        ["ENSG3", "SST", "ENSDARG3", "sst1.1"],
    ]
    assert read_orthologs(path, "mouse", "zebrafish").pairs.values.tolist() == [["ENSMUSG2", "Gcg", "ENSDARG2", "gcga"]]


def test_a_long_table_of_species_never_heard_of(tmp_path):
    header = "species_a\tgene_a\tspecies_b\tgene_b\n"
    text = header + "bat one\tg1\tbat two\th1\nbat two\th2\tbat one\tg2\nx\ta\ty\tb\n"
    pairs = read_orthologs(write(tmp_path, text), "Bat one", "bat_two").pairs
    assert pairs[["id_a", "id_b"]].values.tolist() == [["g1", "h1"], ["g2", "h2"]]


def test_the_simulated_orthologs_are_read_and_matched(tmp_path):
    simulation = simulate(SimulationConfig(n_cells=5, n_genes=300))
    simulation.write(tmp_path)
    one, two = simulation.config.species[:2]
    truth = [simulation.genes[simulation.genes["species"] == s].reset_index(drop=True) for s in (one, two)]
    rows = read_orthologs(tmp_path / "orthologs.tsv", one, two).match(*truth)
    groups = [table["orthogroup"].to_numpy()[rows[:, side]] for side, table in enumerate(truth)]
    assert (groups[0] == groups[1]).all()
    assert set(groups[0]) == (set(truth[0]["orthogroup"]) & set(truth[1]["orthogroup"])) - {""}


def test_matching_by_symbol_where_the_ids_are_symbols(tmp_path):
    table = read_orthologs(write(tmp_path, WIDE), "mouse", "human")
    rows = table.match(genes("Gcg", "Other", "Ins2"), genes("INS", "GCG"))
    assert rows.tolist() == [[2, 0], [0, 1]]


def test_matching_prefers_ids_and_leaves_out_ambiguous_names(tmp_path):
    table = read_orthologs(write(tmp_path, WIDE), "mouse", "human")
    mouse = genes("Ins2", "Ins2", "Gcg", ids=["ENSMUSG00000000001", "ENSMUSG00000009999", "ENSMUSG00000000002"])
    human = genes("INS", "GCG", "GCG", ids=["x1", "x2", "x3"])
    assert table.match(mouse, human).tolist() == [[0, 0]]
    assert table.match(mouse, human).dtype == np.int64


def test_nothing_in_common_gives_no_rows(tmp_path):
    table = read_orthologs(write(tmp_path, WIDE), "mouse", "human")
    assert table.match(genes("A"), genes("B")).shape == (0, 2)


@pytest.mark.parametrize(
    ("text", "species", "part"),
    [
        (
            WIDE,
            ("mouse", "marmoset"),
            "no genes of callithrix_jacchus; the table has homo_sapiens, mus_musculus",
        ),
        (HUB, ("mouse", "marmoset"), "no genes of callithrix_jacchus"),
        (WIDE, ("mouse", "Mus musculus"), "both are mus_musculus"),
        ("a\tb\n1\t2\n", ("mouse", "human"), "expected the columns species_a"),
        ("", ("mouse", "human"), "not a table"),
    ],
)
def test_tables_that_do_not_serve_are_refused_with_the_reason(tmp_path, text, species, part):
    with pytest.raises(InputError) as caught:
        read_orthologs(write(tmp_path, text), *species)
    assert part in str(caught.value)


def test_unreadable_files_are_refused(tmp_path):
    damaged = tmp_path / "damaged.tsv.gz"
    damaged.write_bytes(gzip.compress(WIDE.encode())[:-12])
    latin = tmp_path / "latin.tsv"
    latin.write_bytes(b"mouse_symbol\thuman_symbol\n\xe9\tA\n")
    for path, part in (
        (damaged, "damaged gzip"),
        (latin, "not UTF-8"),
        (tmp_path / "none", "cannot be read"),
    ):
        with pytest.raises(InputError, match=part):
            read_orthologs(path, "mouse", "human")


@pytest.mark.skipif(not DATA, reason="LEXICELL_DATA names no folder of real data")
def test_real_tables_agree_with_each_other():
    folder = Path(DATA or "") / "orthologs"
    ensembl = read_orthologs(folder / "ensembl_mouse_human_one2one.tsv.gz", "mouse", "human")
    hub = read_orthologs(folder / "babelgene_one2one_best_support3.tsv.gz", "mouse", "human")
    macaque = read_orthologs(folder / "babelgene_one2one_best_support3.tsv.gz", "mouse", "Macaca mulatta")
    assert len(ensembl) > 16_000
    assert len(hub) > 16_000
    assert len(macaque) > 13_000
    shared = ensembl.pairs.merge(hub.pairs, on="symbol_a")
    assert (shared["symbol_b_x"] == shared["symbol_b_y"]).mean() > 0.98


def test_equal_symbols_are_paired_whatever_their_case():
    found = shared_symbols(["Ins2", "Gcg", "Dup", "Sst", ""], ["SST", "DUP", "dup", "ins2", ""])
    assert sorted(map(tuple, found.tolist())) == [(0, 3), (3, 0)]
