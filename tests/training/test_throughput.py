from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch

from lexicell.data.cells import merge_label_trees
from lexicell.data.store import Store
from lexicell.errors import InputError
from lexicell.model.encoder import EncoderConfig
from lexicell.model.flops import StepShape, step_operations, training_flops
from lexicell.model.network import CellNetwork, ModelConfig
from lexicell.training.compilation import compile_blocks
from lexicell.training.fit import fit
from lexicell.training.recipe import Recipe, override_recipe
from lexicell.training.run_folder import read_json
from lexicell.training.throughput import (
    KNOWN_PEAKS,
    PEAK_ENV,
    PeakRate,
    Utilisation,
    known_peak,
    matrix_dtype,
    measured_rate,
    peak_rate,
)

CPU = torch.device("cpu")
CONFIG = ModelConfig(encoder=EncoderConfig(width=16, layers=2, heads=2))


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA GH200 480GB", "GH200"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA A10G", "A10G"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA GeForce RTX 3090 Ti", "RTX 3090 Ti"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada"),
    ],
)
def test_a_gpu_is_known_by_its_name(device: str, expected: str) -> None:
    assert known_peak(device) == KNOWN_PEAKS[expected] * 1e12


@pytest.mark.parametrize("device", ["Tesla T4", "NVIDIA A1000", "NVIDIA L400"])
def test_another_gpu_is_not_taken_for_one_that_is_known(device: str) -> None:
    assert known_peak(device) is None


def test_what_the_user_states_comes_first_then_the_environment_then_a_measurement(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(PEAK_ENV, raising=False)
    measured = peak_rate(CPU, torch.float32)
    assert measured.source == "measured"
    assert 1e9 < measured.flops < 1e14
    monkeypatch.setenv(PEAK_ENV, "312")
    assert peak_rate(CPU, torch.float32) == PeakRate(312e12, "environment")
    assert peak_rate(CPU, torch.float32, 5) == PeakRate(5e12, "recipe")
    monkeypatch.setenv(PEAK_ENV, "fast")
    with pytest.raises(InputError, match=PEAK_ENV):
        peak_rate(CPU, torch.float32)


def test_the_measured_rate_is_that_of_a_matrix_product() -> None:
    assert measured_rate(CPU, torch.float64, seconds=0.05) < 1.5 * measured_rate(CPU, torch.float32, seconds=0.2)


def test_mfu_by_hand() -> None:
    use = Utilisation(flops_per_cell=2e9, peak=PeakRate(1e12, "recipe"), devices=2)
    assert use.mfu(500) == pytest.approx(0.5)
    assert use.facts(500)["mfu"] == 0.5


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [
        ("bf16-mixed", torch.bfloat16),
        ("bf16-true", torch.bfloat16),
        ("16-mixed", torch.float16),
        ("32-true", torch.float32),
        ("64-true", torch.float64),
    ],
)
def test_the_type_of_matrices_under_each_precision(precision: str, dtype: torch.dtype) -> None:
    assert matrix_dtype(precision) == dtype


def test_a_run_tells_its_mfu_and_a_resumed_one_keeps_it(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = override_recipe(
        Recipe(),
        {
            "model.encoder.width": 16,
            "model.encoder.layers": 1,
            "model.encoder.heads": 2,
            "sampling.tokens": 40,
            "sampling.queries": 16,
            "data.batch_size": 8,
            "trainer.max_steps": 4,
            "trainer.val_every": 4,
            "trainer.log_every": 1,
            "trainer.peak_tflops": 0.001,
        },
    )
    monkeypatch.setenv("COLUMNS", "200")  # so that the line is not cut
    fit(settings, [store], tmp_path / "run")
    line = capsys.readouterr().out
    told = read_json(tmp_path / "run" / "run.json")
    (shown,) = re.findall(r"cells/s  MFU (\d+)%  loss \d", line)
    assert int(shown) == pytest.approx(100 * told["mfu"], abs=1)
    n_labels = sum(len(names) for names in merge_label_trees([store]).names)  # type: ignore[union-attr]
    shape = StepShape(cells=8, tokens=40, queries=16, n_classes=told["count_classes"], n_labels=n_labels)
    flops = training_flops(step_operations(settings.model, shape)) / 8
    assert told["gflops_per_cell"] == pytest.approx(flops / 1e9, abs=1e-3)
    assert told["mfu"] == pytest.approx(told["cells_per_second"] * flops / 1e9, rel=0.02)
    assert (told["peak_tflops"], told["peak_source"]) == (0.001, "recipe")
    fit(settings, [store], tmp_path / "run", resume=True, progress=False)
    assert read_json(tmp_path / "run" / "run.json")["mfu"] == told["mfu"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of PyTorch in itself
def test_compiling_is_left_off_on_a_cpu_unless_wanted() -> None:
    network = CellNetwork(CONFIG, 20)
    names = set(network.state_dict())
    assert not compile_blocks(network, "auto", "cpu")
    assert not compile_blocks(network, "off", "cuda")
    assert compile_blocks(network, "on", "cpu")
    assert set(network.state_dict()) == names  # checkpoints fit with and without


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of PyTorch in itself
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # the same, in its compiler
def test_compiled_blocks_compute_the_same() -> None:
    network = CellNetwork(CONFIG, 20)
    network.initialise(torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1
    genes = torch.stack([torch.randperm(20)[:10] for _ in range(4)])
    cells = (genes, torch.ones_like(genes), torch.full((4,), 50.0), torch.zeros(4, 0, dtype=torch.long))
    results = []
    for compiled in (False, True):
        if compiled:
            compile_blocks(network, "on", "cpu")
        network.zero_grad()
        context = network.encode(*cells).context
        logits = network.count_logits(genes[:2], context)  # two views of two cells
        logits.square().sum().backward()
        results.append((logits.detach(), network.genes.rows.grad.clone()))
    for plain, fused in zip(*results, strict=True):
        torch.testing.assert_close(fused, plain, rtol=1e-4, atol=1e-4)
