import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from lexicell.errors import InputError
from lexicell.inference.cell_model import CellModel
from lexicell.reporting.text import print_tables
from lexicell.workflows.report import report


@pytest.fixture
def made_up(tmp_path):
    folder = tmp_path / "run"
    (folder / "report").mkdir(parents=True)
    metrics = pd.DataFrame({"step": [1, 2], "train/loss": [2.0, 1.0], "val/skill": [np.nan, 0.12]})
    metrics.assign(**{"val/skill/0": 0.3, "val/skill/1": -0.1}).to_csv(folder / "metrics.csv", index=False)
    scores = pd.DataFrame({"method": ["knn", "knn", "pca_knn"], "level": "type", "seed": [0, 1, 0]})
    scores["accuracy"], scores["macro_f1"] = [0.8, 0.9, 0.7], [0.6, 0.8, 0.5]
    scores.to_csv(folder / "report" / "annotation_scores.csv", index=False)
    return folder


def test_the_page_is_written_and_its_figures_returned(made_up, capsys):
    result = report(made_up)
    assert result.path == made_up / "report.html"
    assert result.path.read_text(encoding="utf-8").startswith("<!doctype html>")
    figures = json.loads(json.dumps(result.figures()))
    assert figures["skill"] == {"overall": 0.12, "0": 0.3, "1": -0.1}
    assert figures["annotation"]["knn"] == pytest.approx({"accuracy": 0.85, "macro_f1": 0.7})
    assert figures["faults"] == []
    print_tables(result.tables())
    assert "pca_knn" in capsys.readouterr().out
    assert list(made_up.glob(".*")) == []


def test_it_can_be_written_elsewhere_and_again(made_up, tmp_path):
    first = report(made_up, tmp_path / "pages" / "a.html").path.read_bytes()
    assert report(made_up, tmp_path / "pages" / "a.html").path.read_bytes() == first
    assert not (made_up / "report.html").exists()


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="there is no such run folder"):
        report(tmp_path / "none")


@pytest.fixture
def trained(run, tmp_path, monkeypatch) -> Path:
    """A copy of a trained run, without tables in report/."""
    monkeypatch.setitem(sys.modules, "umap", None)
    return Path(shutil.copytree(run, tmp_path / "trained"))


def test_tables_on_held_out_cells_are_made_where_they_are_missing(trained, monkeypatch):
    result = report(trained, progress=False)
    assert result.faults == ()
    assert {"Annotation beside the baselines", "Cell embedding"} <= set(result.sections)
    assert set(result.annotation) == {"probe", "knn", "label_head", "logistic_regression", "pca_knn"}
    page = result.path.read_text(encoding="utf-8")
    assert "training cells, drawn at random" in page
    monkeypatch.setattr("lexicell.workflows.report.compare_run", None)  # not made again
    assert report(trained, progress=False).annotation == result.annotation


def test_tables_are_made_anew_when_the_run_was_trained_on(trained):
    report(trained, progress=False)
    picture = trained / "report" / "embedding.csv"
    before = picture.read_text(encoding="utf-8")
    model = CellModel.load(trained, device="cpu")
    with torch.no_grad():
        model.network.cls += 1.0
    model.save(trained)
    report(trained, progress=False)
    after = picture.read_text(encoding="utf-8")
    assert after != before

    with torch.no_grad():
        model.network.cls += 1.0
    model.save(trained)
    facts = facts_of(trained)
    facts["stores"][0]["path"] = "gone"
    (trained / "run.json").write_text(json.dumps(facts), encoding="utf-8")
    (fault,) = report(trained, progress=False).faults
    assert "shown are those of the model before it was trained on" in fault
    assert picture.read_text(encoding="utf-8") == after


def facts_of(run: Path) -> dict:
    return json.loads((run / "run.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"path": "gone"}, "gone: expected a store"), ({"fingerprint": "0" * 64}, "not the store that the run was")],
)
def test_stores_that_are_gone_or_changed_are_told(trained, change, reason):
    facts = facts_of(trained)
    facts["stores"][1] |= change
    (trained / "run.json").write_text(json.dumps(facts), encoding="utf-8")
    result = report(trained, progress=False)
    (fault,) = result.faults
    assert reason in fault
    assert "Annotation beside the baselines" not in result.sections
    assert "Training curves" in result.sections
    assert reason in result.path.read_text(encoding="utf-8")
    assert not (trained / "report").exists()


def test_a_run_without_a_model_yet_is_reported(trained):
    (trained / "model.safetensors").unlink()
    result = report(trained, progress=False)
    (fault,) = result.faults
    assert "model.safetensors not found" in fault
    assert "Training curves" in result.sections
