from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pandas as pd
import pytest
import torch

from lexicell.errors import InputError
from lexicell.genes.lexicon import Lexicon
from lexicell.labels import LabelTree
from lexicell.model.checkpoint import ModelSpec, load_model, save_model
from lexicell.model.encoder import EncoderConfig
from lexicell.model.network import CellNetwork, ModelConfig


def make_spec(n_genes: int = 9) -> ModelSpec:
    return ModelSpec(
        config=ModelConfig(encoder=EncoderConfig(width=16, layers=1, heads=2)),
        lexicon=Lexicon.from_genes("mouse", [f"g{i}" for i in range(n_genes)]),
        label_tree=LabelTree.from_frame(pd.DataFrame({"t": ["a", "b"]}), ["t"]),
        covariates={"tissue": ("brain", "pancreas")},
        tokens=4,
        silent_share=0.25,
    )


def make_network(spec: ModelSpec) -> CellNetwork:
    network = spec.build()
    network.initialise(torch.Generator().manual_seed(0))
    return network


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    spec = make_spec()
    save_model(tmp_path / "run", make_network(spec), spec)
    return tmp_path / "run"


def test_a_model_comes_back_as_it_was(saved: Path) -> None:
    network, spec = load_model(saved)
    expected = make_spec()
    assert spec.to_dict() == expected.to_dict()
    assert spec.lexicon == expected.lexicon
    for (name, value), (_, other) in zip(
        network.state_dict().items(), make_network(expected).state_dict().items(), strict=True
    ):
        assert torch.equal(value, other), name
    assert not list(saved.glob("*.part"))


def test_a_frozen_table_comes_back_frozen(tmp_path: Path) -> None:
    spec = make_spec()
    network = make_network(spec)
    network.genes.freeze(4)
    save_model(tmp_path, network, spec)
    loaded, _ = load_model(tmp_path)
    assert len(loaded.genes.frozen) == 4
    assert torch.equal(loaded.genes.weight, network.genes.weight)


def test_a_model_of_an_earlier_format_is_refused(saved: Path) -> None:
    config = saved / "config.json"
    config.write_text(config.read_text().replace('"format": 3', '"format": 2'))
    with pytest.raises(InputError, match="format 2, but this lexicell reads format 3; pretrain anew"):
        load_model(saved)


def test_another_lexicon_is_refused(saved: Path) -> None:
    Lexicon.from_genes("mouse", [f"h{i}" for i in range(9)]).save(saved / "lexicon.parquet")
    with pytest.raises(InputError, match="restore the lexicon that belongs to the model"):
        load_model(saved)


def test_weights_of_another_make_are_refused(saved: Path, tmp_path: Path) -> None:
    other = make_spec(n_genes=12)
    save_model(tmp_path / "other", make_network(other), other)
    (tmp_path / "other" / "model.safetensors").replace(saved / "model.safetensors")
    with pytest.raises(InputError, match=r"genes\.rows \(12, 16\) \(expected \(9, 16\)\)"):
        load_model(saved)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "lexicon.parquet"])
def test_a_missing_file_is_named(saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(InputError, match=f"{name} not found"):
        load_model(saved)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "lexicon.parquet"])
def test_damage_is_one_clear_error(saved: Path, name: str) -> None:
    (saved / name).write_bytes((saved / name).read_bytes()[:40])
    with pytest.raises(InputError, match=name):
        load_model(saved)


def test_another_format_is_refused(saved: Path) -> None:
    data = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps(data | {"format": 99}))
    with pytest.raises(InputError, match="format 99"):
        load_model(saved)


class Malice:
    def __reduce__(self):  # type: ignore[no-untyped-def]
        return os.system, ("touch pwned",)


def test_a_pickle_in_place_of_weights_is_not_run(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (saved / "model.safetensors").write_bytes(pickle.dumps(Malice()))
    with pytest.raises(InputError, match="not readable as safetensors"):
        load_model(saved)
    assert not (tmp_path / "pwned").exists()
