"""The optimiser: parameter groups, learning rates that know the width, warm-up and decay."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import nn

from lexicell.errors import InputError
from lexicell.training.muon import MuonWithAdamW, has_muon

EMBEDDINGS = frozenset({"genes", "counts", "covariates", "cls"})
TRUNK = ("encoder.blocks.", "decoder.blocks.")


@dataclass(frozen=True)
class OptimConfig:
    """AdamW (Loshchilov & Hutter 2019) or Muon (Jordan et al. 2024), with warm-up and decay."""

    optimizer: Literal["auto", "adamw", "muon"] = "adamw"
    """adamw for everything, or muon for the matrices of the transformer blocks and adamw for the rest; auto is muon
    where this PyTorch has it (2.9 or later) and weights are not shared out (fsdp), else adamw."""
    lr: float = 1e-3
    """Highest learning rate of the matrices under adamw, and of biases and norms."""
    muon_lr_scale: float = 2.0
    """Learning rate of muon's matrices, as a multiple of lr."""
    embedding_lr_scale: float = 1.0
    """Learning rate of embeddings, as a multiple of lr."""
    base_width: int = 0
    """Width that lr was chosen at; other widths get a rate that learns as fast. 0 takes lr as it is at any width."""
    schedule: Literal["cosine", "wsd"] = "cosine"
    """After the warm-up: half a cosine, or a stable rate and a linear decay at the end (warm-up, stable, decay)."""
    decay_share: float = 0.2
    """Share of the run in which the rate falls at the end, where the schedule is wsd."""
    warmup_steps: int = 100
    """Steps in which the learning rate rises from 0."""
    final_lr_scale: float = 0.05
    """Learning rate at the end, as a multiple of lr."""
    weight_decay: float = 0.05
    """Weight decay of the matrices; embeddings, norms and biases have none."""
    beta1: float = 0.9
    """Decay of the gradient's mean."""
    beta2: float = 0.98
    """Decay of the gradient's square."""
    ema_decay: float = 0.0
    """Decay of a moving average of the weights, which is then what is looked at and saved, as 0.999; 0 for none."""

    def __post_init__(self) -> None:
        if min(self.lr, self.muon_lr_scale) <= 0 or min(self.weight_decay, self.warmup_steps, self.base_width) < 0:
            raise InputError(
                "optim: lr and muon_lr_scale must be positive, weight_decay, warmup_steps and base_width not negative; "
                f"got {self}"
            )
        if not 0 <= self.ema_decay < 1:
            raise InputError(f"optim: ema_decay lies between 0 and 1, as 0.999, or is 0 for none; got {self.ema_decay}")
        if not 0 < self.decay_share <= 1 or not 0 <= self.final_lr_scale <= 1:
            raise InputError(
                "optim: decay_share must lie above 0 and not above 1, final_lr_scale between 0 and 1; "
                f"got {self.decay_share} and {self.final_lr_scale}"
            )

    def settled(self, *, sharded: bool) -> OptimConfig:
        """Return it with `optimizer` decided, as a run keeps it."""
        if self.optimizer != "auto":
            return self
        return replace(self, optimizer="muon" if has_muon() and not sharded else "adamw")


def build_optimizer(network: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """Return the optimiser over all parameters that have a gradient.

    Only matrices are decayed. Learning rates follow the width, where `base_width` is given, as in muP (Yang et al.
    2022) for a residual stream whose tokens begin as unit vectors: with r = base_width / width,

    - matrices whose inputs grow in number with the width: r for AdamW, as each of their outputs is a sum over the
      inputs; sqrt(r) for Muon, whose updates are scaled to AdamW's size an entry, so that their spectral norm grows
      as sqrt(width);
    - embeddings: sqrt(r), as the entries of a unit vector shrink by that;
    - biases, norms and matrices with a fixed number of inputs: 1.
    """
    config = config.settled(sharded=False)
    groups = list(_groups(network, config))
    betas = (config.beta1, config.beta2)
    if config.optimizer == "muon":
        return MuonWithAdamW(groups, betas=betas)
    for group in groups:
        del group["muon"]
    return torch.optim.AdamW(groups, betas=betas, fused=True)


def _groups(network: nn.Module, config: OptimConfig) -> Iterator[dict[str, Any]]:
    """Yield groups of parameters that share a rate and a decay, those that Muon may take marked so."""
    ratio = config.base_width / _width(network) if config.base_width else 1.0
    muon, wide, fixed, embeddings, rest = [], [], [], [], []
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        if name.split(".")[0] in EMBEDDINGS:
            embeddings.append(parameter)
        elif parameter.ndim < 2:
            rest.append(parameter)
        elif config.optimizer == "muon" and name.startswith(TRUNK):
            muon.append(parameter)
        elif config.base_width and parameter.shape[1] < _width(network):
            fixed.append(parameter)
        else:
            wide.append(parameter)
    lr, decay = config.lr, config.weight_decay
    for parameters, scale, group_decay in (
        (muon, config.muon_lr_scale * math.sqrt(ratio), decay),
        (wide, ratio, decay),
        (fixed, 1.0, decay),
        (embeddings, config.embedding_lr_scale * math.sqrt(ratio), 0.0),
        (rest, 1.0, 0.0),
    ):
        if parameters:
            yield {"params": parameters, "lr": lr * scale, "weight_decay": group_decay, "muon": parameters is muon}


def _width(network: nn.Module) -> int:
    return int(network.get_parameter("cls").shape[0])


def lr_scale(step: int, config: OptimConfig, max_steps: int) -> float:
    """Return the factor on the learning rate at a step: linear warm-up, then the schedule."""
    if step < config.warmup_steps:
        return (step + 1) / (config.warmup_steps + 1)
    if config.schedule == "wsd":
        decay_steps = max(1.0, config.decay_share * max_steps)
        left = min(1.0, max(0.0, (max_steps - step) / decay_steps))
    else:
        done = min(1.0, (step - config.warmup_steps) / max(1, max_steps - config.warmup_steps))
        left = (1 + math.cos(math.pi * done)) / 2
    return config.final_lr_scale + (1 - config.final_lr_scale) * left
