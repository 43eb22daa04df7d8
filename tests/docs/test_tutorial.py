from __future__ import annotations

import runpy
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.py"


def test_the_tutorial_runs_and_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setitem(sys.modules, "scanpy", None)  # the way without scanpy; with it, the picture alone differs
    plt.switch_backend("agg")
    try:
        names = runpy.run_path(str(TUTORIAL))
    finally:
        plt.close("all")
    work = names["work"]
    assert work.parent == tmp_path
    for left in ("store/meta.json", "run/model.safetensors", "cells.png", "genes.parquet"):
        assert (work / left).is_file(), left
    assert names["figures"]["skill"]["overall"] > 0
    assert names["annotated"].scores["type"]["macro_f1"] > 0.8
    assert names["query"].obs.columns.equals(names["reference"].obs.columns)  # nothing was written into the query
