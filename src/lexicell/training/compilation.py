"""`torch.compile` of the transformer blocks: what is not matrix work is fused into few passes over memory."""

from __future__ import annotations

from typing import Literal

from torch.utils._triton import has_triton

from lexicell.model.network import CellNetwork

Compile = Literal["auto", "on", "off"]


def compile_blocks(network: CellNetwork, wanted: Compile, device_type: str) -> bool:
    """Compile the blocks of trunk and decoder, where that is wanted.

    Blocks are compiled one by one and in place: blocks of one shape share their code, so that the wait does not grow
    with depth, and the names of weights stay, so that checkpoints fit with and without.

    Parameters
    ----------
    network
        The network; only how its blocks are computed changes.
    wanted
        auto compiles on a GPU alone: on a CPU a short run waits longer than it wins. On a GPU the gain is expected,
        not measured: `benchmarks/step.py` shows it, with and without ``--compile``.
    device_type
        cpu, cuda, ...

    Returns
    -------
    Whether blocks will be compiled, each when it is first called.
    """
    if wanted == "off" or (wanted == "auto" and not (device_type == "cuda" and has_triton())):
        return False
    for block in (*network.encoder.blocks, *network.decoder.blocks):
        block.compile()
    return True
