from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd
import pytest

from lexicell.data.store import Store
from lexicell.errors import InputError
from lexicell.inference.cell_model import CellModel
from lexicell.reporting.text import print_tables
from lexicell.workflows.genes_map import genes_map
from lexicell.workflows.genes_neighbours import genes_neighbours


@pytest.fixture(autouse=True)
def _no_umap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)  # importing it takes longer than all the rest


def test_a_map_is_coloured_by_the_first_set(
    run: Path, stores: list[Store], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    symbols = stores[0].lexicon.table["symbol"].tolist()
    gmt = tmp_path / "sets.gmt"
    gmt.write_text(f"A\t\t{chr(9).join(symbols[:20])}\nB\t\t{chr(9).join(symbols[10:40])}\n", encoding="utf-8")
    found = genes_map(run, sets=gmt, out=tmp_path / "out")
    figures = json.loads(json.dumps(found.figures()))
    assert figures["method"] == "PCA"
    own = found.genes[found.genes["species"] == "simulus_albus"]
    assert set(own.loc[own["set"] == "A", "symbol"]) == set(symbols[:20])
    assert set(own.loc[own["set"] == "B", "symbol"]) == set(symbols[20:40])
    assert set(figures["species"]) == {"simulus_albus", "simulus_niger"}
    assert found.genes["seen"].notna().all()
    again = pd.read_parquet(tmp_path / "out" / "genes_map.parquet")
    pd.testing.assert_frame_equal(again, found.genes)
    assert {path.name for path in found.written} == {path.name for path in (tmp_path / "out").iterdir()}
    print_tables(found.tables())
    assert "set A" in capsys.readouterr().out


def test_genes_seen_most_are_drawn(run: Path, cell_model: CellModel, tmp_path: Path) -> None:
    everything = genes_map(run, species=["simulus_niger"], out=tmp_path).genes
    few = genes_map(run, species=["simulus_niger"], genes=50, out=tmp_path).genes
    assert len(few) == 50
    assert few["seen"].min() >= everything["seen"].nlargest(50).min()
    alone = genes_map(cell_model, genes=40)
    assert alone.written == ()
    assert alone.genes["seen"].isna().all()
    assert alone.genes["species"].value_counts().tolist() == [40, 40]


def test_a_map_refuses_what_it_cannot_draw(run: Path, tmp_path: Path) -> None:
    gmt = tmp_path / "sets.gmt"
    gmt.write_text("A\t\tnone\tof\tthese\n", encoding="utf-8")
    with pytest.raises(InputError, match="no set to show"):
        genes_map(run, sets=gmt, out=tmp_path)
    with pytest.raises(InputError, match="there is no set B"):
        genes_map(run, sets=gmt, show=["B"], out=tmp_path)
    with pytest.raises(InputError, match="sets of which file"):
        genes_map(run, show=["B"], out=tmp_path)
    with pytest.raises(InputError, match="does not know"):
        genes_map(run, species=["mouse"], out=tmp_path)


def test_the_graph_around_a_gene(
    run: Path, stores: list[Store], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gene = stores[0].lexicon.table.iloc[3]
    found = genes_neighbours(run, str(gene["gene_id"]), top=4, matches=2, out=tmp_path)
    assert found.nodes.iloc[0][["species", "gene_id"]].tolist() == ["simulus_albus", gene["gene_id"]]
    assert found.nodes["kind"].value_counts()["neighbour"] == 4
    assert (found.nodes["species"] == "simulus_niger").sum() >= 3
    assert {path.name for path in found.written} == {path.name for path in tmp_path.iterdir()}
    json.dumps(found.figures())
    print_tables(found.tables())
    assert "Around" in capsys.readouterr().out
    alone = genes_neighbours(run, str(gene["symbol"]), species="simulus_albus", others=["simulus_niger"], out=tmp_path)
    assert alone.nodes["gene_id"].iloc[0] == gene["gene_id"]
    with pytest.raises(InputError, match="is no gene of"):
        genes_neighbours(run, "nonsense", out=tmp_path)
    with pytest.raises(InputError, match="must be there once"):
        genes_neighbours(run, str(gene["gene_id"]), others=["mouse"], out=tmp_path)
