"""Muon for matrices and AdamW for the rest, as one optimiser, so that schedules and checkpoints see only one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from lexicell.errors import InputError


def has_muon() -> bool:
    """Return whether this PyTorch has Muon (2.9 or later)."""
    return hasattr(torch.optim, "Muon")


class MuonWithAdamW(torch.optim.Optimizer):
    """PyTorch's own Muon and AdamW over one list of parameter groups.

    Muon's updates are scaled to the size that AdamW's usually have (Liu et al. 2025), so that both take the same
    learning rate.

    Parameters
    ----------
    groups
        Parameter groups, each with ``lr``, ``weight_decay`` and ``muon``: whether Muon takes its matrices.
    betas
        Decays of AdamW's moments; the first is Muon's momentum too.

    Raises
    ------
    InputError
        When this PyTorch has no Muon.
    """

    def __init__(self, groups: list[dict[str, Any]], betas: tuple[float, float]) -> None:
        if not has_muon():
            raise InputError(
                f"optim.optimizer: muon needs PyTorch 2.9 or later, and this is {torch.__version__}; "
                "pip install 'torch>=2.9', or take adamw"
            )
        matrices = [group for group in groups if group["muon"]]
        others = [group for group in groups if not group["muon"]]
        self._parts: list[torch.optim.Optimizer] = []
        if matrices:
            self._parts.append(torch.optim.Muon(matrices, momentum=betas[0], adjust_lr_fn="match_rms_adamw"))
        if others:
            self._parts.append(torch.optim.AdamW(others, betas=betas, fused=True))
        super().__init__([group for part in self._parts for group in part.param_groups], {})
        self._share()

    def _share(self) -> None:
        """Let the parts work on this optimiser's groups and state: what is set or loaded here reaches them."""
        for part in self._parts:
            is_muon = isinstance(part, torch.optim.Muon)
            part.param_groups = [group for group in self.param_groups if group["muon"] == is_muon]
            part.state = self.state

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step with both."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self._parts:
            part.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state."""
        super().load_state_dict(state_dict)
        self._share()
