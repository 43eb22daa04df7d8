from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from lexicell.data.store import Store
from lexicell.errors import InputError
from lexicell.model.checkpoint import load_model
from lexicell.training.callbacks import Stop
from lexicell.training.checkpoints import checkpoints_in
from lexicell.training.datamodule import CellDataModule
from lexicell.training.fit import fit
from lexicell.training.recipe import Recipe, dump_recipe, load_recipe, override_recipe
from lexicell.training.run_folder import read_json

SMALL = {
    "model.encoder.width": 16,
    "model.encoder.layers": 1,
    "model.encoder.heads": 2,
    "sampling.tokens": 32,
    "sampling.queries": 16,
    "data.batch_size": 8,
    "trainer.max_steps": 12,
    "trainer.val_every": 5,
    "trainer.log_every": 1,
    "optim.warmup_steps": 2,
    "optim.lr": 0.01,
}


def recipe(**overrides: object) -> Recipe:
    return override_recipe(Recipe(), SMALL | {k.replace("__", "."): v for k, v in overrides.items()})


def weights(run: Path) -> dict[str, torch.Tensor]:
    state = torch.load(checkpoints_in(run / "checkpoints")[0], weights_only=True)
    network = {name: value for name, value in state["state_dict"].items() if name.startswith("network.")}
    return network | {"exposure": state["exposure"]}


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert torch.equal(value, b[name]), name


@pytest.fixture(scope="module")
def whole(stores: list[Store], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fit") / "whole"
    result = fit(recipe(), stores, out, progress=False)
    assert result.finished
    assert result.steps == 12
    return out


def test_a_run_leaves_a_whole_folder(whole: Path, stores: list[Store]) -> None:
    names = {path.name for path in whole.iterdir()}
    assert names >= {
        "recipe.yaml", "run.json", "metrics.csv", "exposure.npy", "checkpoints",
        "model.safetensors", "config.json", "lexicon.parquet", "tensorboard",
    }  # fmt: skip
    assert not [name for name in names if name.endswith(".part")]
    facts = read_json(whole / "run.json")
    assert facts["steps"] == 12
    assert facts["cells_per_second"] > 0
    assert [entry["fingerprint"] for entry in facts["stores"]] == [store.fingerprint for store in stores]
    network, spec = load_model(whole)
    assert len(spec.lexicon) == len(network.genes) == sum(store.n_genes for store in stores)
    assert spec.covariates["species"] == ("simulus_albus", "simulus_niger")


def test_metrics_hold_losses_skill_and_strata(whole: Path) -> None:
    metrics = pd.read_csv(whole / "metrics.csv").set_index("step")
    looks = metrics.dropna(subset=["val/skill"])
    assert list(looks.index) == [5, 10, 12]
    assert {"val/ce", "val/baseline_ce", "val/skill/0", "val/skill/1", "val/labels", "val/contrastive"} <= set(looks)
    np.testing.assert_allclose(looks["val/skill"], 1 - looks["val/ce"] / looks["val/baseline_ce"], atol=1e-4)
    assert looks["val/loss"].iloc[-1] < looks["val/loss"].iloc[0]


def test_a_run_begins_where_the_marginals_are(stores: list[Store], tmp_path: Path) -> None:
    begin, skill = {}, {}
    for marginal in (True, False):
        out = tmp_path / str(marginal)
        settings = recipe(gene_rows__marginal=marginal, trainer__max_steps=1, optim__lr=1e-9)
        skill[marginal] = fit(settings, stores, out, progress=False).metrics["val/skill"]
        begin[marginal] = pd.read_csv(out / "metrics.csv")["train/counts"].iloc[0]
    n_classes = read_json(out / "run.json")["count_classes"]
    assert begin[False] == pytest.approx(np.log(n_classes), rel=0.02)
    assert -0.1 < skill[True] < 0.1
    assert skill[False] < -0.5


def test_exposure_counts_every_token_and_query(whole: Path) -> None:
    exposure = np.load(whole / "exposure.npy", allow_pickle=False)
    assert exposure[:, :2].sum() == 12 * 8 * 2 * 32
    assert exposure[:, 2].sum() == 12 * 8 * 16


def test_a_signal_leaves_a_run_that_resumes_to_the_very_same_weights(
    whole: Path, stores: list[Store], tmp_path: Path
) -> None:
    out = tmp_path / "resumed"
    before = signal.getsignal(signal.SIGTERM)

    def send() -> None:
        while "Stop._receive" not in getattr(signal.getsignal(signal.SIGTERM), "__qualname__", ""):
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=send)
    thread.start()
    stopped = fit(recipe(), stores, out, progress=False)
    thread.join()
    assert not stopped.finished
    assert 0 < stopped.steps < 12
    assert read_json(out / "run.json")["steps"] == stopped.steps
    assert signal.getsignal(signal.SIGTERM) is before

    resumed = fit(recipe(), stores, out, resume=True, progress=False)
    assert resumed.finished
    assert_same(weights(out), weights(whole))
    losses = [pd.read_csv(run / "metrics.csv").set_index("step")["train/loss"].dropna() for run in (out, whole)]
    pd.testing.assert_series_equal(*losses)
    assert read_json(out / "run.json")["steps"] == 12


def test_another_seed_is_another_run(whole: Path, stores: list[Store], tmp_path: Path) -> None:
    fit(recipe(seed=1), stores, tmp_path / "other", progress=False)
    first, second = weights(whole), weights(tmp_path / "other")
    assert not torch.equal(first["network.genes.rows"], second["network.genes.rows"])


def test_a_folder_in_use_is_left_alone(whole: Path, stores: list[Store]) -> None:
    before = (whole / "model.safetensors").read_bytes()
    with pytest.raises(InputError, match="already there, and not empty"):
        fit(recipe(), stores, whole, progress=False)
    assert (whole / "model.safetensors").read_bytes() == before


def test_only_the_trainer_section_may_change_when_resuming(whole: Path, stores: list[Store], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing to resume"):
        fit(recipe(), stores, tmp_path / "none", resume=True)
    with pytest.raises(InputError) as caught:
        fit(recipe(optim__lr=0.5), stores[:1], whole, resume=True)
    assert "differs from the run's in optim.lr (0.01, now 0.5);" in str(caught.value)
    assert "stores are not those of the run" in str(caught.value)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this PyTorch has no Muon")
def test_a_run_that_took_muon_says_so_when_another_strategy_would_not(stores: list[Store], tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    begun = recipe(optim__optimizer="auto")
    (run / "recipe.yaml").write_text(dump_recipe(begun))
    with pytest.raises(InputError, match=r"optim\.optimizer \(muon, now adamw\).*Pass .*recipe\.yaml as the recipe"):
        fit(recipe(optim__optimizer="auto", trainer__strategy="fsdp"), stores, run, resume=True, progress=False)
    sharded = load_recipe(run / "recipe.yaml", {"trainer.strategy": "fsdp"})
    assert sharded.optim == begun.optim


def test_a_run_of_another_model_format_is_not_gone_on_with(whole: Path, stores: list[Store], tmp_path: Path) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    facts = read_json(run / "run.json")
    (run / "run.json").write_text(json.dumps(facts | {"model_format": 1}))
    with pytest.raises(InputError, match="begun by another version of lexicell"):
        fit(recipe(), stores, run, resume=True)


def test_early_stopping(stores: list[Store], tmp_path: Path) -> None:
    settings = recipe(trainer__patience=1, trainer__val_every=1, trainer__max_steps=200, optim__lr=1e-9)
    result = fit(settings, stores[:1], tmp_path / "early", progress=False)
    assert result.steps < 200


def test_without_stores_there_is_nothing_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no store given"):
        fit(recipe(), [], tmp_path / "x")


def test_a_malicious_checkpoint_is_not_run(
    whole: Path, stores: list[Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Malice:
        def __reduce__(self):  # type: ignore[no-untyped-def]
            return os.system, ("touch pwned",)

    run = tmp_path / "run"
    shutil.copytree(whole, run)
    monkeypatch.chdir(tmp_path)
    for path in (run / "checkpoints").iterdir():
        path.unlink()
    torch.save({"state_dict": Malice(), "global_step": 3}, run / "checkpoints" / "step-000000012.ckpt")
    with pytest.raises(InputError, match="more than tensors"):
        fit(recipe(trainer__max_steps=20), stores, run, resume=True, progress=False)
    assert not (tmp_path / "pwned").exists()


def test_mixed_precision_trains(stores: list[Store], tmp_path: Path) -> None:
    result = fit(recipe(trainer__precision="bf16-mixed"), stores[:1], tmp_path / "bf16", progress=False)
    assert result.finished
    assert np.isfinite(list(result.metrics.values())).all()


def test_resuming_a_finished_run_changes_nothing(whole: Path, stores: list[Store], tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    before = read_json(run / "run.json")
    again = fit(recipe(), stores, run, resume=True, progress=False)
    assert again.finished
    assert again.metrics["val/skill"] == pytest.approx(
        pd.read_csv(whole / "metrics.csv")["val/skill"].dropna().iloc[-1], abs=1e-4
    )
    assert read_json(run / "run.json") == before


def test_lightning_starts_the_second_process(stores: list[Store], tmp_path: Path) -> None:
    overrides = SMALL | {"trainer.devices": 2, "trainer.accelerator": "cpu", "trainer.max_steps": 2}
    script = textwrap.dedent(f"""
        from pathlib import Path
        from lexicell.data.store import Store
        from lexicell.training.fit import fit
        from lexicell.training.recipe import Recipe, override_recipe
        if __name__ == "__main__":
            stores = [Store.open(path) for path in {[str(store.path) for store in stores]!r}]
            fit(override_recipe(Recipe(), {overrides!r}), stores, Path({str(tmp_path / "run")!r}), progress=False)
    """)
    (tmp_path / "train.py").write_text(script)
    done = subprocess.run([sys.executable, str(tmp_path / "train.py")], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    exposure = np.load(tmp_path / "run" / "exposure.npy", allow_pickle=False)
    assert exposure[:, 2].sum() == 2 * 8 * 16


def test_a_second_sigterm_changes_nothing(whole: Path, stores: list[Store], tmp_path: Path) -> None:
    out = tmp_path / "hurried"

    def send() -> None:
        while "Stop._receive" not in getattr(signal.getsignal(signal.SIGTERM), "__qualname__", ""):
            time.sleep(0.001)
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)

    thread = threading.Thread(target=send)
    thread.start()
    stopped = fit(recipe(), stores, out, progress=False)
    thread.join()
    assert not stopped.finished
    assert checkpoints_in(out / "checkpoints")[0].name == f"step-{stopped.steps:09d}.ckpt"
    fit(recipe(), stores, out, resume=True, progress=False)
    assert_same(weights(out), weights(whole))


def test_a_sigterm_while_lightning_sets_up_ends_the_run_with_a_checkpoint(
    stores: list[Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_dataloader = CellDataModule.train_dataloader

    def interrupted(data: CellDataModule) -> object:
        signal.raise_signal(signal.SIGTERM)
        return train_dataloader(data)

    monkeypatch.setattr(CellDataModule, "train_dataloader", interrupted)
    stopped = fit(recipe(), stores, tmp_path / "early", progress=False)
    assert not stopped.finished
    assert checkpoints_in(tmp_path / "early" / "checkpoints")[0].name == f"step-{stopped.steps:09d}.ckpt"


def test_a_second_ctrl_c_ends_a_run_at_once() -> None:
    stop = Stop(10)
    with stop.listening():
        signal.raise_signal(signal.SIGINT)
        assert stop.received is signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_run_stopped_before_its_first_checkpoint_begins_again(
    whole: Path, stores: list[Store], tmp_path: Path
) -> None:
    out = tmp_path / "early"
    out.mkdir()
    shutil.copy(whole / "recipe.yaml", out)
    with pytest.raises(InputError, match="--resume to go on with that run"):
        fit(recipe(), stores, out, progress=False)
    with pytest.raises(InputError, match="recipe differs"):
        fit(recipe(seed=1), stores, out, resume=True, progress=False)
    assert fit(recipe(), stores, out, resume=True, progress=False).finished
    assert_same(weights(out), weights(whole))


def test_the_last_few_checkpoints_are_kept(whole: Path) -> None:
    names = [path.name for path in checkpoints_in(whole / "checkpoints")]
    assert names == ["step-000000012.ckpt", "step-000000010.ckpt", "step-000000005.ckpt"]
    assert {path.name for path in (whole / "checkpoints").iterdir()} == {
        *names,
        *(f"{name}.sha256" for name in names),
    }


@pytest.mark.parametrize("damage", ["truncated", "changed", "emptied"])
def test_a_damaged_checkpoint_is_passed_over(
    whole: Path, stores: list[Store], tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    last = checkpoints_in(run / "checkpoints")[0]
    content = last.read_bytes()
    middle = len(content) // 2
    last.write_bytes(
        {"truncated": content[:middle], "changed": content[:middle] + b"x" + content[middle + 1 :], "emptied": b""}[
            damage
        ]
    )
    fit(recipe(), stores, run, resume=True, progress=False)
    assert "going on from step-000000010.ckpt" in caplog.text
    assert_same(weights(run), weights(whole))
    assert (run / "checkpoints" / f"{last.name}.damaged").is_file()
