"""FSDP2: weights, gradients and optimiser states are shared out over processes; checkpoints stay single whole files.

A checkpoint holds whole weights and the optimiser's states by parameter name, whatever the strategy, so that a run
goes on with another number of processes, or with another strategy.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer


class Sharded(ModelParallelStrategy):
    """FSDP2 over all processes, through Lightning."""

    def __init__(self) -> None:
        super().__init__(save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        """Make one mesh of all processes."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        self._tensor_parallel_size = 1
        super().setup_environment()

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Say that the optimiser's states are put back by `load_optimizer_state_dict`."""
        return True

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return the optimiser's whole states by parameter name; on the first process, else nothing."""
        if isinstance(optimizer, LightningOptimizer):
            optimizer = optimizer.optimizer
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        return get_optimizer_state_dict(self._whole_model, optimizer, options=options)

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint; model and optimiser take their shares of it later."""
        return self.checkpoint_io.load_checkpoint(checkpoint_path, weights_only=weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Take over the own share of whole weights."""
        options = StateDictOptions(full_state_dict=True, strict=strict)
        set_model_state_dict(self._whole_model, dict(checkpoint["state_dict"]), options=options)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Take over the own share of whole optimiser states."""
        options = StateDictOptions(full_state_dict=True)
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            set_optimizer_state_dict(self._whole_model, optimizer, state, options=options)

    @property
    def _whole_model(self) -> nn.Module:
        if self.model is None:
            raise AssertionError("the strategy has no model yet")
        return self.model


def shard(module: nn.Module, parts: list[nn.Module], mesh: DeviceMesh, entries: tuple[str, ...]) -> None:
    """Share out a module's parameters over a mesh: each of `parts` on its own, the rest together.

    Parameters
    ----------
    module
        What is shared out.
    parts
        Its parts that are gathered and let go one after the other.
    mesh
        The processes.
    entries
        Methods of `module` that use its parameters, beside ``forward``.
    """
    for part in parts:
        fully_shard(part, mesh=mesh)
    fully_shard(module, mesh=mesh)
    for entry in entries:
        register_fsdp_forward_method(module, entry)


def whole_weights(network: nn.Module) -> dict[str, Tensor]:
    """Return a network's weights on the CPU, gathered if they are shared out; all processes must call it."""
    return {
        name: (value.full_tensor() if isinstance(value, DTensor) else value).detach().cpu()
        for name, value in network.state_dict().items()
    }


def by_name(state: dict[str, Any], optimizer: Optimizer, model: nn.Module) -> dict[str, Any]:
    """Return an optimiser's states keyed by parameter name, instead of the parameter's number."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    ordered = [names[parameter] for group in optimizer.param_groups for parameter in group["params"]]
    return {
        "state": {ordered[number]: values for number, values in state["state"].items()},
        "param_groups": [
            group | {"params": [ordered[number] for number in group["params"]]} for group in state["param_groups"]
        ],
    }


def by_number(state: dict[str, Any]) -> dict[str, Any]:
    """Return states that are keyed by parameter name keyed by number again, as optimisers count them."""
    ordered = [name for group in state["param_groups"] for name in group["params"]]
    number = {name: place for place, name in enumerate(ordered)}
    return {
        "state": {number[name]: values for name, values in state["state"].items()},
        "param_groups": [
            group | {"params": [number[name] for name in group["params"]]} for group in state["param_groups"]
        ],
    }


def norm_of(gradients: Tensor) -> Tensor:
    """Return a gradient's norm as a plain tensor."""
    return torch.as_tensor(gradients.full_tensor() if isinstance(gradients, DTensor) else gradients).detach()
