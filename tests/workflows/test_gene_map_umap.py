"""The map of the gene space by UMAP, where umap-learn is installed (the extra ``umap``)."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest

from lexicell.inference.cell_model import CellModel
from lexicell.workflows.genes_map import genes_map

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of what else could be installed beside umap-learn
    pytest.importorskip("umap")


@pytest.mark.slow  # minutes of compiling
def test_the_map_is_umaps_and_the_same_twice(cell_model: CellModel, tmp_path: Path) -> None:
    found = genes_map(cell_model, genes=120, out=tmp_path)
    assert json.loads(json.dumps(found.figures()))["method"] == "UMAP"
    assert np.isfinite(found.genes[["x", "y"]].to_numpy()).all()
    again = genes_map(cell_model, genes=120)
    np.testing.assert_array_equal(again.genes[["x", "y"]], found.genes[["x", "y"]])
