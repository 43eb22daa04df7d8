import json

import pytest

from lexicell.datasets import simulate
from lexicell.errors import InputError
from lexicell.workflows.public_data import get_data, list_data


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    """An empty cache, and a simulation small enough for a test."""
    monkeypatch.setenv("LEXICELL_CACHE", str(tmp_path / "cache"))
    small = simulate.SimulationConfig(n_cells=20, n_genes=200)
    full = simulate.simulate
    monkeypatch.setattr(simulate, "simulate", lambda: full(small))


def test_the_listing_says_what_is_cached():
    before = list_data()
    assert not before.here
    get_data("simulated")
    after = list_data()
    assert after.here == {"simulated"}
    entry = next(entry for entry in after.figures()["datasets"] if entry["name"] == "simulated")
    assert entry["cached"] is True
    json.dumps(after.figures())
    (table,) = after.tables()
    assert len(table.rows) == len(after.entries)


def test_fetched_files_are_told_with_their_sizes(tmp_path):
    planned = get_data("simulated", tmp_path / "here", ["simulus_echo"], dry_run=True)
    assert not (tmp_path / "here").exists()
    assert "dry run" in planned.tables()[0].title
    done = get_data("simulated", tmp_path / "here", ["simulus_echo"])
    assert done.paths == planned.paths
    assert all(file["bytes"] > 0 for file in planned.figures()["files"])
    assert [file["bytes"] for file in done.figures()["files"]] == [path.stat().st_size for path in done.paths]
    assert "dry run" not in done.tables()[0].title


def test_an_unknown_name_is_refused():
    with pytest.raises(InputError, match="there are baron-mouse"):
        get_data("nothing")
