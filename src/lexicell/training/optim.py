"""The optimiser: parameter groups, warm-up and cosine decay."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from lexicell.errors import InputError


@dataclass(frozen=True)
class OptimConfig:
    """AdamW (Loshchilov & Hutter 2019) with linear warm-up and cosine decay."""

    lr: float = 1e-3
    """Highest learning rate of the matrices."""
    embedding_lr_scale: float = 1.0
    """Learning rate of embeddings, as a multiple of lr."""
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

    def __post_init__(self) -> None:
        if self.lr <= 0 or self.weight_decay < 0 or self.warmup_steps < 0:
            raise InputError(f"optim: lr must be positive, weight_decay and warmup_steps not negative; got {self}")


def build_optimizer(network: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """Return AdamW over three groups: matrices (decayed), embeddings, and the rest."""
    matrices, embeddings, rest = [], [], []
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        if name.split(".")[0] in {"genes", "counts", "covariates", "cls"}:
            embeddings.append(parameter)
        elif parameter.ndim >= 2:
            matrices.append(parameter)
        else:
            rest.append(parameter)
    groups = [
        {"params": matrices, "lr": config.lr, "weight_decay": config.weight_decay},
        {"params": embeddings, "lr": config.lr * config.embedding_lr_scale, "weight_decay": 0.0},
        {"params": rest, "lr": config.lr, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], betas=(config.beta1, config.beta2), fused=True)


def lr_scale(step: int, config: OptimConfig, max_steps: int) -> float:
    """Return the factor on the learning rate at a step: linear warm-up, then half a cosine."""
    if step < config.warmup_steps:
        return (step + 1) / (config.warmup_steps + 1)
    done = min(1.0, (step - config.warmup_steps) / max(1, max_steps - config.warmup_steps))
    return config.final_lr_scale + (1 - config.final_lr_scale) * (1 + math.cos(math.pi * done)) / 2
