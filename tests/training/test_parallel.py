from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from forked_training import Forked

from lexicell.data.store import Store
from lexicell.training.checkpoints import checkpoints_in
from lexicell.training.run_folder import read_json

SMALL: dict[str, object] = {
    "model.encoder.width": 16,
    "model.encoder.layers": 1,
    "model.encoder.heads": 2,
    "model.counts.max_count": 64,
    "sampling.tokens": 32,
    "sampling.queries": 16,
    "data.batch_size": 8,
    "data.validation.max_cells": 13,  # two batches, of which the second is not whole
    "trainer.accelerator": "cpu",
    "trainer.max_steps": 4,
    "trainer.val_every": 2,
    "trainer.log_every": 1,
    "optim.warmup_steps": 0,
    "optim.final_lr_scale": 1.0,  # so that a run's length does not change its steps
    "optim.lr": 0.01,
}
WAYS = {"one": (1, "auto"), "ddp": (2, "ddp"), "fsdp": (2, "fsdp")}
# The optimiser of the recipe tiny: Muon, where this PyTorch has it. Its iteration is in bfloat16, and so runs whose
# gradients differ in the last digits part: by 1 % of the way that a matrix has come in three steps, by 5 % in four.
TINY: dict[str, object] = {"optim.optimizer": "auto"}
TINY_STEPS, TINY_ATOL = 3, 1e-3  # matrices have come 1e-2 by then


@pytest.fixture(scope="module")
def forked() -> Iterator[Forked]:
    with Forked() as process:
        yield process


@pytest.fixture(scope="module")
def paths(stores: list[Store]) -> list[str]:
    return [str(store.path) for store in stores]


def train(
    forked: Forked,
    paths: list[str],
    out: Path,
    way: str,
    steps: int,
    *,
    changes: dict[str, object] | None = None,
    resume: bool = False,
) -> Path:
    processes, strategy = WAYS[way]
    recipe = (
        SMALL
        | (changes or {})
        | {"trainer.devices": processes, "trainer.strategy": strategy, "trainer.max_steps": steps}
    )
    forked.fit(out, paths, recipe, processes=processes, resume=resume)
    return out


@pytest.fixture(scope="module")
def runs(forked: Forked, paths: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("parallel")
    return {way: train(forked, paths, folder / way, way, 4) for way in WAYS}


@pytest.fixture(scope="module")
def tiny(forked: Forked, paths: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one process with tiny's optimiser."""
    return train(forked, paths, tmp_path_factory.mktemp("tiny") / "one", "one", TINY_STEPS, changes=TINY)


def state(run: Path) -> dict[str, object]:
    return dict(torch.load(checkpoints_in(run / "checkpoints")[0], weights_only=True))


def assert_alike(run: Path, other: Path, atol: float = 2e-4) -> None:
    """Two runs agree: weights, the first moments of the optimiser, what was counted, and all that was logged."""
    first, second = state(run), state(other)
    assert first["state_dict"].keys() == second["state_dict"].keys()  # type: ignore[attr-defined]
    for name, value in first["state_dict"].items():  # type: ignore[attr-defined]
        torch.testing.assert_close(second["state_dict"][name], value, atol=atol, rtol=1e-3, msg=name)  # type: ignore[index]
    moments = [s["optimizer_states"][0]["state"] for s in (first, second)]  # type: ignore[index]
    assert moments[0].keys() == moments[1].keys()
    for name, values in moments[0].items():
        mean = "exp_avg" if "exp_avg" in values else "momentum_buffer"
        torch.testing.assert_close(moments[1][name][mean], values[mean], atol=2e-5, rtol=1e-2, msg=name)
    np.testing.assert_array_equal(np.load(run / "exposure.npy"), np.load(other / "exposure.npy"))
    assert read_json(run / "run.json")["counts_clamped"] == read_json(other / "run.json")["counts_clamped"]
    tables = [pd.read_csv(each / "metrics.csv").set_index("step") for each in (run, other)]
    assert list(tables[0].columns) == list(tables[1].columns)
    np.testing.assert_allclose(tables[0], tables[1], atol=2e-3, rtol=2e-3)


def test_two_processes_have_the_gradients_of_one(forked: Forked, paths: list[str], tmp_path: Path) -> None:
    found = {}
    for processes in (1, 2):
        out = tmp_path / f"{processes}.pt"
        codes, stderr = forked.run(processes=processes, kind="gradients", out=str(out), stores=paths, recipe=SMALL)
        assert codes == [0] * processes, stderr[-3000:]
        found[processes] = torch.load(out, weights_only=True)
    assert found[1].keys() == found[2].keys()
    assert {name for name in found[1] if name.startswith("loss.")} == {
        "loss.counts", "loss.cls_counts", "loss.contrastive", "loss.labels",
    }  # fmt: skip
    for name, value in found[1].items():
        assert value.any(), name
        torch.testing.assert_close(found[2][name], value, atol=1e-6, rtol=1e-4, msg=name)


@pytest.mark.parametrize("way", ["ddp", "fsdp"])
def test_two_processes_come_to_the_weights_of_one(runs: dict[str, Path], way: str) -> None:
    assert_alike(runs["one"], runs[way])
    exposure = np.load(runs[way] / "exposure.npy", allow_pickle=False)
    assert exposure[:, :2].sum() == 4 * 8 * 2 * 32
    assert exposure[:, 2].sum() == 4 * 8 * 16


def test_two_processes_come_to_the_weights_of_one_with_the_optimiser_of_tiny(
    forked: Forked, paths: list[str], tiny: Path, tmp_path: Path
) -> None:
    assert_alike(tiny, train(forked, paths, tmp_path / "ddp", "ddp", TINY_STEPS, changes=TINY), TINY_ATOL)


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second"), [("ddp", "ddp"), ("ddp", "one"), ("one", "ddp")])
def test_a_run_resumes_with_the_optimiser_of_tiny(
    forked: Forked, paths: list[str], tiny: Path, tmp_path: Path, first: str, second: str
) -> None:
    out = train(forked, paths, tmp_path / "run", first, 2, changes=TINY)
    train(forked, paths, out, second, TINY_STEPS, changes=TINY, resume=True)
    assert_alike(tiny, out, TINY_ATOL)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this PyTorch has no Muon")
def test_a_run_with_muon_goes_on_over_shared_out_weights(
    forked: Forked, paths: list[str], tiny: Path, tmp_path: Path
) -> None:
    muon: dict[str, object] = {"optim.optimizer": "muon"}  # auto would be adamw there
    out = train(forked, paths, tmp_path / "run", "one", TINY_STEPS - 1, changes=muon)
    train(forked, paths, out, "fsdp", TINY_STEPS, changes=muon, resume=True)
    assert_alike(tiny, out, 5 * TINY_ATOL)


def resumed_alike(forked: Forked, paths: list[str], folder: Path, first: str, second: str, whole: Path) -> None:
    out = train(forked, paths, folder / f"{first}-{second}", first, 2)
    train(forked, paths, out, second, 4, resume=True)
    assert_alike(whole, out)


@pytest.mark.parametrize(("first", "second"), [("fsdp", "one"), ("one", "fsdp"), ("ddp", "ddp")])
def test_a_run_resumes_with_another_number_of_processes(
    forked: Forked, paths: list[str], runs: dict[str, Path], tmp_path: Path, first: str, second: str
) -> None:
    resumed_alike(forked, paths, tmp_path, first, second, runs["one"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "second"), [("ddp", "one"), ("one", "ddp"), ("ddp", "fsdp"), ("fsdp", "ddp"), ("fsdp", "fsdp")]
)
def test_a_run_resumes_with_another_strategy(
    forked: Forked, paths: list[str], runs: dict[str, Path], tmp_path: Path, first: str, second: str
) -> None:
    resumed_alike(forked, paths, tmp_path, first, second, runs["one"])


@pytest.mark.parametrize(
    "off",
    ["contrastive", pytest.param("labels", marks=pytest.mark.slow), pytest.param("cls_counts", marks=pytest.mark.slow)],
)
def test_heads_that_nothing_trains_hold_nobody_up(forked: Forked, paths: list[str], tmp_path: Path, off: str) -> None:
    recipe = SMALL | {f"objectives.{off}": 0.0, "trainer.devices": 2, "trainer.max_steps": 2}
    forked.fit(tmp_path / "run", paths, recipe, processes=2)
    assert np.load(tmp_path / "run" / "exposure.npy", allow_pickle=False)[:, 2].sum() == 2 * 8 * 16
