"""How well a run uses its machine: model FLOP/s achieved, as a share of what the device can do (MFU).

MFU (Chowdhery et al. 2022) counts the arithmetic that the model needs, not what is computed twice. The peak is the
dense bf16 rate that the maker states for known GPUs, a rate that the user states, or else the rate of a large matrix
product measured on this very device at the run's precision: then 1 is what a matrix product reaches.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import torch

from lexicell.errors import InputError
from lexicell.model.flops import StepShape, step_operations, training_flops
from lexicell.model.network import ModelConfig

PEAK_ENV = "LEXICELL_PEAK_TFLOPS"

# Dense bf16 TFLOP/s of tensor cores with float32 sums, without sparsity, from the makers' data sheets. The first
# name that the device's name contains counts, so longer names stand before shorter ones.
KNOWN_PEAKS: dict[str, float] = {
    "B200": 2250.0,
    "H200": 989.5,
    "GH200": 989.5,
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "H100": 989.5,
    "H800": 989.5,
    "A100": 312.0,
    "A800": 312.0,
    "A40": 149.7,
    "A30": 165.0,
    "A10G": 70.0,
    "A10": 125.0,
    "L40S": 362.0,
    "L40": 181.0,
    "L4": 121.0,
    "RTX 6000 Ada": 364.2,
    "RTX A6000": 154.8,
    "RTX A5000": 111.1,
    "RTX 5090": 209.5,
    "RTX 4090": 165.2,
    "RTX 4080": 97.5,
    "RTX 3090 Ti": 80.0,
    "RTX 3090": 71.0,
    "MI300X": 1307.4,
    "MI250X": 191.5,  # one of its two dies, which is what PyTorch calls a device
}


@dataclass(frozen=True)
class PeakRate:
    """What a device can do."""

    flops: float
    """Operations a second."""
    source: str
    """Where the figure is from: recipe, environment, data sheet or measured."""


def peak_rate(device: torch.device, dtype: torch.dtype, tflops: float = 0.0) -> PeakRate:
    """Return the peak rate of a device.

    Parameters
    ----------
    device, dtype
        Where, and at what precision matrix products are computed.
    tflops
        The rate as the user states it, in TFLOP/s; 0 leaves it to the environment variable ``LEXICELL_PEAK_TFLOPS``,
        else to the table of known GPUs (at bf16), else to a measurement.
    """
    if tflops > 0:
        return PeakRate(tflops * 1e12, "recipe")
    stated = os.environ.get(PEAK_ENV)
    if stated is not None:
        try:
            value = float(stated)
        except ValueError:
            value = 0.0
        if value <= 0:
            raise InputError(f"environment variable {PEAK_ENV}={stated!r}: expected TFLOP/s, a positive number")
        return PeakRate(value * 1e12, "environment")
    if device.type == "cuda" and dtype == torch.bfloat16:
        known = known_peak(torch.cuda.get_device_name(device))
        if known is not None:
            return PeakRate(known, "data sheet")
    return PeakRate(measured_rate(device, dtype), "measured")


def known_peak(device_name: str) -> float | None:
    """Return the dense bf16 rate of a GPU by its name, in operations a second; None for one that is not known."""
    words = device_name.replace("-", " ").lower()
    for name, tflops in KNOWN_PEAKS.items():
        if f" {name.lower()} " in f" {words} ":
            return tflops * 1e12
    return None


def measured_rate(device: torch.device, dtype: torch.dtype, seconds: float = 0.1) -> float:
    """Return the rate of a large matrix product on a device, in operations a second: the best of some repeats."""
    n = 8192 if device.type == "cuda" else 1024
    x, y = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    best, begun = float("inf"), time.perf_counter()
    while best == float("inf") or time.perf_counter() - begun < seconds:
        _wait(device)
        started = time.perf_counter()
        torch.mm(x, y)
        _wait(device)
        best = min(best, time.perf_counter() - started)
    return 2 * n**3 / best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass(frozen=True)
class Utilisation:
    """Turns cells a second into MFU."""

    flops_per_cell: float
    """Operations that training on one cell needs: forward, backward, all views, decoder included."""
    peak: PeakRate
    """Rate of one device."""
    devices: int = 1
    """Devices that share the work."""

    def mfu(self, cells_per_second: float) -> float:
        """Return the share of the devices' peak."""
        return cells_per_second * self.flops_per_cell / (self.peak.flops * self.devices)

    def facts(self, cells_per_second: float) -> dict[str, object]:
        """Return what run.json tells."""
        return {
            "mfu": round(self.mfu(cells_per_second), 4),
            "gflops_per_cell": round(self.flops_per_cell / 1e9, 3),
            "peak_tflops": round(self.peak.flops / 1e12, 3),
            "peak_source": self.peak.source,
        }


def utilisation(
    config: ModelConfig, shape: StepShape, tflops: float, device: torch.device, precision: str, devices: int
) -> Utilisation:
    """Return what turns a run's speed into MFU; `precision` is Lightning's, for `tflops` see `peak_rate`."""
    flops = training_flops(step_operations(config, shape)) / shape.cells
    return Utilisation(flops, peak_rate(device, matrix_dtype(precision), tflops), devices)


def matrix_dtype(precision: str) -> torch.dtype:
    """Return the type that matrices are multiplied in under a precision of Lightning's."""
    if "bf16" in precision:
        return torch.bfloat16
    if precision.startswith("16"):
        return torch.float16
    return torch.float64 if precision.startswith("64") else torch.float32
