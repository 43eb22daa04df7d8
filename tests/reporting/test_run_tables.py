import numpy as np
import pytest

from lexicell.errors import InputError
from lexicell.reporting.run_tables import read_run


def test_everything_is_read(made_up_run):
    run = read_run(made_up_run)
    assert run.name == "run"
    assert run.faults == ()
    assert run.facts["training_cells"] == 822
    assert "lr: 0.002" in run.recipe
    assert run.exposure.shape == (200, 3)
    assert len(run.lexicon) == 200
    assert set(run.tables) == {"annotation_scores", "confusion", "embedding"}
    assert run.table("embedding", "x", "y") is not None
    assert run.table("embedding", "z") is None
    assert run.table("nothing") is None


def test_damaged_files_are_named_and_the_rest_is_read(made_up_run):
    (made_up_run / "run.json").write_text("[1, 2]")
    (made_up_run / "report" / "confusion.parquet").write_bytes(b"no parquet")
    np.save(made_up_run / "exposure.npy", np.zeros(4))
    run = read_run(made_up_run)
    assert run.facts == {}
    assert run.exposure is None
    assert len(run.faults) == 3
    assert any(fault.startswith("report/confusion.parquet: ") for fault in run.faults)
    assert any("expected a JSON object, found list" in fault for fault in run.faults)
    assert any("expected the shape (genes, 3), found (4,)" in fault for fault in run.faults)
    assert run.metrics is not None


def test_a_pickled_array_is_not_loaded(made_up_run):
    np.save(made_up_run / "exposure.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    run = read_run(made_up_run)
    assert run.exposure is None
    assert "allow_pickle" in run.faults[0]


def test_folders_without_a_run_are_refused(tmp_path):
    with pytest.raises(InputError, match="there is no such run folder"):
        read_run(tmp_path / "nothing")
    with pytest.raises(InputError, match="holds nothing to report"):
        read_run(tmp_path)
