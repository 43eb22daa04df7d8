from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from anndata import AnnData
from huggingface_hub import HfApi, ModelCard

from lexicell.data.query import read_query
from lexicell.data.store import Store
from lexicell.errors import InputError
from lexicell.inference.cell_model import CellModel
from lexicell.inference.model_card import UNKNOWN, sources_of
from lexicell.model.checkpoint import save_model


@pytest.fixture
def run(cell_model: CellModel, stores: list[Store], tmp_path: Path) -> Path:
    """A run folder as training leaves it; its figures are made up."""
    folder = tmp_path / "run"
    save_model(folder, cell_model.network, cell_model.spec)
    (folder / "recipe.yaml").write_text("seed: 7\noptim: {lr: 0.001}\n")
    table = {
        "step": [5, 10, 15],
        "val/loss": [3.0, 2.0, 2.5],
        "val/skill": [0.1, 0.25, 0.2],
        "val/skill/0": [0, 0.5, 0],
    }
    pd.DataFrame(table).to_csv(folder / "metrics.csv", index=False)
    np.save(folder / "exposure.npy", np.ones((800, 3), np.int64))
    entries = [
        {"name": "mine", "path": "/somewhere/mine", "species": ["simulus_albus"], "cells": 120, "fingerprint": "f"},
        {
            "name": "public", "path": "/somewhere/public", "species": ["mus_musculus"], "cells": 30, "fingerprint": "g",
            "sources": [
                {"name": "baron-mouse", "species": "mus_musculus", "cells": 20},
                {"name": "allen-part", "species": "mus_musculus", "cells": 10},
            ],
        },
    ]  # fmt: skip
    facts = {
        "stores": entries,
        "held_out": "donor d1",
        "parameters": {"total": 12345},
        "steps": 15,
        "start": {"run": "/x"},
    }
    (folder / "run.json").write_text(json.dumps(facts))
    return folder


LICENCES = {"allen-part": "CC BY-NC 4.0: non-commercial use only"}


def test_the_round_trip_through_a_folder(run: Path, cells: AnnData, tmp_path: Path) -> None:
    model, shared = CellModel.load(run, device="cpu"), tmp_path / "shared"
    assert model.save_pretrained(shared) is None
    again = CellModel.from_pretrained(shared, device="cpu")
    query = read_query(cells, species="simulus_albus", lexicon=model.lexicon)
    np.testing.assert_array_equal(again.embed(query), model.embed(query))
    assert again.lexicon.fingerprint == model.lexicon.fingerprint
    assert again.label_tree == model.label_tree
    # A copy of the copy is as good, and nothing tells where the first one lay.
    again.save_pretrained(tmp_path / "twice")
    for name in ("config.json", "model.safetensors", "lexicon.parquet", "recipe.yaml", "metrics.csv", "exposure.npy"):
        assert (tmp_path / "twice" / name).read_bytes() == (run / name).read_bytes(), name
    assert (tmp_path / "twice" / "README.md").read_text() == (shared / "README.md").read_text()
    assert "/somewhere" not in (shared / "run.json").read_text()
    assert "start" not in json.loads((shared / "run.json").read_text())


def test_the_card_tells_data_licences_skill_and_lexicon(run: Path) -> None:
    model = CellModel.load(run, device="cpu")
    card = model.generate_model_card(name="Mouse and simulus", licences=LICENCES, authors="A. Nonym", repo_id="lab/m")
    assert card.data.license == "cc-by-nc-4.0"
    assert card.data.library_name == "lexicell"
    assert "**For non-commercial use only**: the licence of allen-part forbids" in card.text
    assert "| baron-mouse | mus_musculus | 20 | MIT" in card.text
    assert "The licence of mine is not stated" in card.text
    assert f"`{model.lexicon.fingerprint}`" in card.text
    assert "at step 10:" in card.text  # where the held-out loss was lowest
    assert "| all | +0.250 |\n| 0 | +0.500 |" in card.text
    assert "optim: {lr: 0.001}" in card.text
    assert 'from_pretrained("lab/m")' in card.text
    assert "A. Nonym, Mouse and simulus" in card.text
    assert "10.1016/j.cels.2016.08.011" in card.text
    assert "| parameters | 12,345 |" in card.text
    assert yaml.safe_load(card.content.split("---")[1])["license"] == "cc-by-nc-4.0"


def test_the_allen_atlases_are_named_as_non_commercial() -> None:
    facts = {"stores": [{"name": "s", "species": ["mus_musculus"], "cells": 5, "sources": []}]}
    assert [source.licence for source in sources_of(facts)] == [UNKNOWN]
    from lexicell.datasets.registry import find

    for entry in (find("allen-2021"), find("allen-2023")):
        stem = Path(entry.files[0].name).stem
        facts["stores"][0]["sources"] = [{"name": stem, "species": "mus_musculus", "cells": 5}]  # type: ignore[index]
        (source,) = sources_of(facts)
        assert source.licence == entry.licence
        assert source.non_commercial


def test_without_a_run_folder_the_card_says_so(cell_model: CellModel, tmp_path: Path) -> None:
    cell_model.save_pretrained(tmp_path / "bare")
    text = (tmp_path / "bare" / "README.md").read_text()
    assert "Not known: no run folder came with this model" in text
    assert "license:" not in text


def test_a_licence_of_no_source_is_refused(run: Path) -> None:
    with pytest.raises(InputError, match="no source is called elsewhere; there are allen-part, baron-mouse"):
        CellModel.load(run, device="cpu").generate_model_card(licences={"elsewhere": "MIT"})


def test_pushing_uploads_the_same_files(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uploaded: dict[str, object] = {}

    class Repository:
        repo_id = "lab/model"

    def upload(self: HfApi, *, folder_path: Path, repo_id: str, **_: object) -> str:
        uploaded.update(names={path.name for path in folder_path.iterdir()}, repo_id=repo_id)
        uploaded["card"] = ModelCard.load(folder_path / "README.md").data.license
        return "url"

    monkeypatch.setattr(HfApi, "create_repo", lambda self, **_: Repository())
    monkeypatch.setattr(HfApi, "upload_folder", upload)
    model = CellModel.load(run, device="cpu")
    assert model.push_to_hub("lab/model", model_card_kwargs={"licences": LICENCES}) == "url"
    assert uploaded["repo_id"] == "lab/model"
    assert uploaded["card"] == "cc-by-nc-4.0"
    assert uploaded["names"] == {
        "README.md", "config.json", "model.safetensors", "lexicon.parquet", "recipe.yaml", "metrics.csv",
        "exposure.npy", "run.json",
    }  # fmt: skip
