from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lexicell.data.store import Store
from lexicell.errors import InputError
from lexicell.gene_space.gene_pairs import partner_auroc
from lexicell.inference.cell_model import CellModel
from lexicell.reporting.text import print_tables
from lexicell.workflows.interpret_attention import interpret_attention
from lexicell.workflows.interpret_counts import interpret_counts
from lexicell.workflows.known_pairs import read_known

SPECIES = "simulus_albus"


@pytest.fixture(scope="module")
def genes(stores: list[Store]) -> pd.DataFrame:
    return stores[0].lexicon.table


@pytest.fixture
def pair_files(genes: pd.DataFrame, tmp_path: Path) -> tuple[Path, Path, Path]:
    """Pairs at random: labelled, directed, and as sets."""
    rng, symbols = np.random.default_rng(0), genes["symbol"].to_numpy()
    draws = rng.choice(symbols, (3000, 2))
    labelled, directed, sets = (tmp_path / name for name in ("labelled.tsv", "directed.csv", "sets.gmt"))
    rows = [f"{a.upper()}\t{b}\t{i % 2}" for i, (a, b) in enumerate(draws)]
    labelled.write_text("\n".join(["gene1\tgene2\tlabel", *rows]) + "\n", encoding="utf-8")
    directed.write_text("\n".join(["source,target", *(f"{a},{b}" for a, b in draws[:600])]) + "\n", encoding="utf-8")
    lines = ["\t".join([f"S{i}", "", *rng.choice(symbols, 25, replace=False)]) for i in range(40)]
    sets.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return labelled, directed, sets


def test_attention_is_checked_beside_co_expression(
    run: Path, pair_files: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labelled, directed, sets = pair_files
    found = interpret_attention(
        run,
        by="class",
        species=SPECIES,
        genes=150,
        cells=15,
        top=3,
        known=([labelled, directed], [sets]),
        out=tmp_path / "out",
        progress=False,
    )
    figures = json.loads(json.dumps(found.figures()))
    assert {row["known"] for row in figures["checks"]} == {"labelled", "directed", "sets"}
    checks = found.checks.set_index(["known", "score"])
    assert {"rollout", "co-expression", "expression level", "layer 1, head 2"} <= set(checks.loc["sets"].index)
    assert "all heads, source reads target" in checks.loc["directed"].index
    assert checks["auroc"].between(0.35, 0.65).all()  # the pairs are drawn at random
    assert (checks.loc[("sets", "co-expression"), ["difference", "difference_low"]] == 0).all()
    assert set(found.top["group"]) == set(found.groups["group"])
    assert found.top.groupby(["group", "map", "gene"]).size().max() <= 3
    assert set(found.top["map"]) == {"all heads", "rollout", "layer 1, head 1", "layer 1, head 2"}
    assert {path.name for path in found.written} == {path.name for path in (tmp_path / "out").iterdir()}
    print_tables(found.tables())
    assert "What CLS reads" in capsys.readouterr().out


def test_genes_of_the_map_can_be_named(cell_model: CellModel, store: Store, genes: pd.DataFrame) -> None:
    often = np.argsort(-np.asarray(store.to_anndata().X.sum(axis=0)).ravel())[:4]
    names = [genes["symbol"].iloc[often[0]], *genes["gene_id"].iloc[often[1:]]]
    found = interpret_attention(cell_model, store.path, species=SPECIES, genes=10, cells=20, show=names, progress=False)
    assert set(found.map["gene"]) == set(genes["symbol"].iloc[often])
    assert found.written == ()
    with pytest.raises(InputError, match="knows no gene nonsense"):
        interpret_attention(cell_model, store.path, species=SPECIES, show=["nonsense"], progress=False)
    with pytest.raises(InputError, match="3 or more"):
        interpret_attention(cell_model, store.path, species=SPECIES, cells=1, progress=False)


def test_known_pairs_are_read(genes: pd.DataFrame, tmp_path: Path) -> None:
    first = genes.head(60).reset_index(drop=True)
    symbols = first["symbol"].tolist()
    gmt = tmp_path / "sets.gmt"
    gmt.write_text(f"A\t\t{chr(9).join(symbols[:9])}\nB\t\t{chr(9).join(symbols[8:14])}\n", encoding="utf-8")
    (known,) = read_known(first, sets=[gmt])
    assert known.n_partners == 9 * 8 // 2 + 6 * 5 // 2
    assert known.partners[0, 8]
    assert known.partners[8, 13]
    assert not known.partners[0, 13]
    assert known.asked[0, 13]  # both are in sets, but share none
    assert not known.asked[0, 20]  # in no set
    with pytest.raises(InputError, match=r"sets \(15\): fewer than 20"):
        read_known(first, sets=[gmt], most=6)  # the larger set makes no pairs

    directed = tmp_path / "tf.tsv"
    rows = [f"{symbols[0]}\t{name}" for name in symbols[10:35]]
    directed.write_text("\n".join(["tf\ttarget", *rows, f"{symbols[1]}\t{symbols[40]}"]) + "\n", encoding="utf-8")
    (known,) = read_known(first, pairs=[directed])
    assert known.directed
    assert known.n_partners == 26
    assert known.asked[1, 12]
    assert not known.asked[12, 1]
    score = np.where(known.partners, 1.0, 0.0)
    auroc = partner_auroc(score, known.partners, known.asked, np.zeros(60, np.int64))["auroc"]
    np.testing.assert_array_equal(auroc[:2], [1, 1])

    with pytest.raises(InputError, match="fewer than 20 known pairs"):
        read_known(first.tail(20).reset_index(drop=True), sets=[gmt])
    bad = tmp_path / "bad.tsv"
    bad.write_text("a\tb\n1\t2\n", encoding="utf-8")
    with pytest.raises(InputError, match="expected the columns gene1 and gene2"):
        read_known(first, pairs=[bad])


def test_counts_are_looked_into(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = interpret_counts(run, species=SPECIES, cells=20, tokens=4, least=5, out=tmp_path, progress=False)
    figures = json.loads(json.dumps(found.figures()))
    assert figures["classes"] == len(found.classes) == 35
    assert -1 <= figures["spearman"] <= 1
    assert found.classes["occurs"].sum() > 0
    assert (found.classes["tokens"] <= 4).all()
    assert found.caps["share_above"].is_monotonic_decreasing
    assert found.caps["moved"].iloc[-1] < found.caps["moved"].iloc[0]
    assert {path.name for path in found.written} == {path.name for path in tmp_path.iterdir()}
    print_tables(found.tables())
    assert "What a cap would cost" in capsys.readouterr().out
    with pytest.raises(InputError, match="2 or more"):
        interpret_counts(run, species=SPECIES, cells=1, progress=False)
