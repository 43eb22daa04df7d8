"""A web server on loopback, and tiny mirrors of the Allen Institute's atlases on it."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from allen_mirror import write_2021, write_2023
from anndata import AnnData
from range_server import Server

from lexicell.datasets import download


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server of an empty folder; no waiting between tries, and the cache is empty."""
    monkeypatch.setattr(download, "_WAIT", 0.001)
    monkeypatch.setenv("LEXICELL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = tmp_path / "mirror"
    folder.mkdir()
    with Server(folder) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def atlas_2023(server, cells, monkeypatch) -> AnnData:
    """A mirror of the ABC Atlas with four matrices of raw counts; returns the cells with their true annotation."""
    monkeypatch.setenv("LEXICELL_ALLEN_2023_URL", server.url)
    return write_2023(server.folder, cells)


@pytest.fixture
def atlas_2021(server, cells, monkeypatch) -> AnnData:
    """A mirror of Yao 2021, genes by samples, of which three have no metadata; returns the cells."""
    truth = cells.copy()
    truth.obs_names = [f"CELL{i:04d}-L8TX_171026_01" for i in range(truth.n_obs)]
    truth.var_names = [f"Gene{i}" for i in range(truth.n_vars)]
    truth.obs["known"] = ~np.isin(np.arange(truth.n_obs), [5, 50, 119])
    write_2021(server.folder, truth)
    monkeypatch.setenv("LEXICELL_ALLEN_2021_URL", server.url)
    return truth
