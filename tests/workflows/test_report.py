import json

import numpy as np
import pandas as pd
import pytest

from lexicell.errors import InputError
from lexicell.reporting.text import print_tables
from lexicell.workflows.report import report


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    (folder / "report").mkdir(parents=True)
    metrics = pd.DataFrame({"step": [1, 2], "train/loss": [2.0, 1.0], "val/skill": [np.nan, 0.12]})
    metrics.assign(**{"val/skill/0": 0.3, "val/skill/1": -0.1}).to_csv(folder / "metrics.csv", index=False)
    scores = pd.DataFrame({"method": ["knn", "knn", "pca_knn"], "level": "type", "seed": [0, 1, 0]})
    scores["accuracy"], scores["macro_f1"] = [0.8, 0.9, 0.7], [0.6, 0.8, 0.5]
    scores.to_csv(folder / "report" / "annotation_scores.csv", index=False)
    return folder


def test_the_page_is_written_and_its_figures_returned(run, capsys):
    result = report(run)
    assert result.path == run / "report.html"
    assert result.path.read_text(encoding="utf-8").startswith("<!doctype html>")
    figures = json.loads(json.dumps(result.figures()))
    assert figures["skill"] == {"overall": 0.12, "0": 0.3, "1": -0.1}
    assert figures["annotation"]["knn"] == pytest.approx({"accuracy": 0.85, "macro_f1": 0.7})
    assert figures["faults"] == []
    print_tables(result.tables())
    assert "pca_knn" in capsys.readouterr().out
    assert list(run.glob(".*")) == []


def test_it_can_be_written_elsewhere_and_again(run, tmp_path):
    first = report(run, tmp_path / "pages" / "a.html").path.read_bytes()
    assert report(run, tmp_path / "pages" / "a.html").path.read_bytes() == first
    assert not (run / "report.html").exists()


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="there is no such run folder"):
        report(tmp_path / "none")
