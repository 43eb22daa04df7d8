from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from lexicell.reporting.text import print_tables
from lexicell.workflows import demo as module
from lexicell.workflows.demo import METHODS, DemoResult, demo
from lexicell.workflows.pretrain import PretrainResult, pretrain


@pytest.fixture(scope="module")
def pancreas(cells: AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stand-in for the demo's data set: simulated cells under its names."""
    adata = cells.copy()
    obs = pd.DataFrame(index=adata.obs_names)
    obs["donor"] = np.where(np.arange(adata.n_obs) % 2, "mouse1", "mouse2")
    obs["cell_type1"] = adata.obs["type"].astype(str)
    adata.obs = obs
    adata.uns.clear()
    path = tmp_path_factory.mktemp("data") / "baron-mouse.h5ad"
    adata.write_h5ad(path)
    return path


@pytest.fixture
def ready(pancreas: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Put the stand-in in the data set's place; the list holds what was fetched."""
    fetched: list[str] = []

    def get(name: str) -> tuple[Path, ...]:
        fetched.append(name)
        return (pancreas,)

    monkeypatch.setattr(module, "get", get)
    monkeypatch.setitem(sys.modules, "umap", None)  # minutes of compiling, for a picture
    return fetched


def check(result: DemoResult, out: Path) -> None:
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert metrics == json.loads(json.dumps(result.figures()))
    assert isinstance(metrics["skill"]["overall"], float)
    assert {"0", "1"} <= set(metrics["skill"])
    assert list(metrics["annotation"]) == list(METHODS)
    for scores in metrics["annotation"].values():
        assert set(scores) == {"accuracy", "macro_f1"}
        assert all(0 <= score <= 1 for score in scores.values())


def test_the_whole_way(
    ready: list[str], small: dict[str, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "demo"
    result = demo(out, overrides=small, progress=False)
    check(result, out)
    assert ready == ["baron-mouse"]
    names = {path.name for path in out.iterdir()}
    assert names >= {"store", "run", "metrics.json", "report.html", "query_embedded.h5ad", "query_annotated.h5ad"}
    assert not [name for name in names if name.endswith(".part")]
    for name, column in (("query_annotated", "lexicell_cell_type1"), ("query_head", "lexicell_cell_type1")):
        assert column in ad.read_h5ad(out / f"{name}.h5ad").obs
    assert set(ad.read_h5ad(out / "query.h5ad").obs["donor"]) == {"mouse2"}
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Annotation beside the baselines" in page
    assert result.annotation["logistic_regression"]["accuracy"] > 0.8
    print_tables(result.tables())
    assert "label_head" in capsys.readouterr().out
    assert "Annotation of donor mouse2 from donor mouse1" in [table.title for table in result.tables()]

    # Run again, it finds everything done, and says the same.
    again = demo(out, overrides=small, progress=False)
    assert ready == ["baron-mouse"]
    check(again, out)
    assert again.annotation == result.annotation
    assert again.pretrained.figures()["skill"] == pytest.approx(result.pretrained.figures()["skill"], abs=1e-4)


def test_it_goes_on_from_where_it_was_stopped(
    ready: list[str], small: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "demo"

    def stop(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "report", lambda *args, **kwargs: None)
    with monkeypatch.context() as patched:
        patched.setattr(module, "compare", stop)
        with pytest.raises(KeyboardInterrupt):
            demo(out, overrides=small | {"trainer.max_steps": 3}, progress=False)
    assert not (out / "metrics.json").exists()

    def stopped(*args: Any, **kwargs: Any) -> PretrainResult:
        result = pretrain(*args, **kwargs)
        return replace(result, fitted=replace(result.fitted, finished=False))

    with monkeypatch.context() as patched:
        patched.setattr(module, "pretrain", stopped)
        with pytest.raises(KeyboardInterrupt):  # nothing is made of a model that a signal stopped
            demo(out, overrides=small | {"trainer.max_steps": 3}, progress=False)
    result = demo(out, overrides=small, progress=False)
    check(result, out)
    assert result.pretrained.fitted.steps == 6
    assert ready == ["baron-mouse"]


def test_a_run_without_a_checkpoint_is_begun_anew(
    ready: list[str], small: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "report", lambda *args, **kwargs: None)
    out = tmp_path / "demo"
    (out / "run").mkdir(parents=True)
    (out / "run" / "lexicon.parquet").write_text("not yet whole")
    check(demo(out, overrides=small, progress=False), out)
