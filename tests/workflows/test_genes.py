from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lexicell.errors import InputError
from lexicell.inference.cell_model import CellModel
from lexicell.reporting.text import print_tables
from lexicell.workflows.genes import genes_table

COUNTED = ["shown_expressed", "shown_silent", "asked"]


def test_a_run_gives_embeddings_with_exposure(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = genes_table(run)
    model = CellModel.load(run)
    assert list(result.table.columns[:7]) == ["species", "gene_id", "symbol", *COUNTED, "e0"]
    np.testing.assert_array_equal(result.table.filter(regex=r"^e\d").to_numpy(), model.network.genes.weight.numpy())
    np.testing.assert_array_equal(result.table[COUNTED].to_numpy(), np.load(run / "exposure.npy"))
    figures = json.loads(json.dumps(result.figures()))
    assert figures["species"] == {"simulus_albus": 400, "simulus_niger": 400}
    assert figures["genes"] == 800
    assert figures["asked_min"] == result.table["asked"].min()
    print_tables(result.tables())
    assert "genes never seen expressed" in capsys.readouterr().out


def test_a_model_gives_embeddings_alone(cell_model: CellModel) -> None:
    result = genes_table(cell_model)
    assert not set(COUNTED) & set(result.table)
    assert set(result.figures()) == {"genes", "species", "out"}


@pytest.mark.parametrize("ending", ["parquet", "csv", "tsv"])
def test_a_file_is_written(cell_model: CellModel, tmp_path: Path, ending: str) -> None:
    out = tmp_path / "new" / f"genes.{ending}"
    result = genes_table(cell_model, out)
    separator = {"csv": ",", "tsv": "\t"}
    read = pd.read_parquet(out) if ending == "parquet" else pd.read_csv(out, sep=separator[ending], na_filter=False)
    pd.testing.assert_frame_equal(read, result.table, check_exact=False, check_dtype=False, rtol=1e-5)
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_bad_input_is_refused(cell_model: CellModel, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.parquet, \.csv or \.tsv"):
        genes_table(cell_model, tmp_path / "genes.xlsx")
    with pytest.raises(InputError, match="not a finished run"):
        genes_table(tmp_path)
    assert not list(tmp_path.iterdir())
