"""The trunk: a pre-norm transformer over a set of tokens.

Design:
- RMSNorm before each sublayer and once at the end; no biases; no dropout.
- Queries and keys are normalised per head (QK-norm), so attention logits cannot run away.
- SwiGLU feed-forward.
- No positions: a cell is a set, and permuting its genes changes nothing.
- PyTorch's scaled-dot-product attention, no mask: batches hold no padding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from lexicell.errors import InputError
from lexicell.model.norm import RMSNorm


@dataclass(frozen=True)
class EncoderConfig:
    """Size of the trunk."""

    width: int = 256
    """Numbers in a token's state."""
    layers: int = 6
    """Transformer blocks."""
    heads: int = 8
    """Attention heads; must divide width."""
    mlp_ratio: float = 2.5
    """Hidden width of the SwiGLU feed-forward, as a multiple of width."""
    activation_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""

    def __post_init__(self) -> None:
        if self.width % self.heads or min(self.width, self.layers, self.heads) < 1:
            raise InputError(
                f"model.encoder: heads must divide width and all be positive; got width={self.width}, "
                f"heads={self.heads}, layers={self.layers}"
            )


class Attention(nn.Module):
    """Multi-head attention of ``x`` on ``context`` (itself, unless another is given)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.query_norm = RMSNorm(width // heads, elementwise_affine=False)
        self.key_norm = RMSNorm(width // heads, elementwise_affine=False)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Attend: (b, l, width) on (v * b, m, width) -> (v * b, l, width).

        The context may hold ``v`` views of the same cells, stacked. On a context of one token the result is the same
        for all of ``x``, and is returned once: (v * b, 1, width).
        """
        if context is not None and context.shape[1] == 1:  # all attention is on that token
            return self.out(self.value(context))  # type: ignore[no-any-return]
        q, k, v = self.project(x, x if context is None else context)
        if len(q) < len(k):
            q = q.repeat(len(k) // len(q), 1, 1, 1)
        attended = F.scaled_dot_product_attention(q, k, v)
        return self.out(attended.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def with_weights(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Attend to itself as `forward` does, and return the weights too: (b, l, width) and (b, heads, l, l).

        Forms the weights, which the fast path never does: for looking at, not for training.
        """
        q, k, v = self.project(x, x)
        weights = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(dim=-1)
        return self.out((weights @ v).transpose(1, 2).flatten(2)), weights

    def project(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return normalised queries, normalised keys and values, each (b, heads, length, width / heads)."""
        q, k, v = (
            states.unflatten(-1, (self.heads, -1)) for states in (self.query(x), self.key(context), self.value(context))
        )
        return self.query_norm(q).transpose(1, 2), self.key_norm(k).transpose(1, 2), v.transpose(1, 2)


class FeedForward(nn.Module):
    """SwiGLU: a gated linear unit with SiLU (Shazeer 2020)."""

    def __init__(self, width: int, ratio: float) -> None:
        super().__init__()
        hidden = hidden_width(width, ratio)
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Transform each token: (..., width) -> (..., width)."""
        gate, up = self.gate(x), self.up(x)
        if torch.compiler.is_compiling():  # which fuses it, and chooses what to keep
            return self.down(F.silu(gate) * up)  # type: ignore[no-any-return]
        return self.down(_Gated.apply(gate, up))  # type: ignore[no-any-return, no-untyped-call]


def hidden_width(width: int, ratio: float) -> int:
    """Return the hidden width of a feed-forward: a multiple of 16, which matrix units like."""
    return int(round(width * ratio / 16) * 16)


class _Gated(torch.autograd.Function):
    """SwiGLU's gate, which keeps nothing but its inputs for the backward pass."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        """Return silu(gate) * up."""
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients of both."""
        gate, up = ctx.saved_tensors
        grad_up = F.silu(gate).mul_(grad)
        return torch.ops.aten.silu_backward(grad * up, gate), grad_up


class Block(nn.Module):
    """One transformer block; with a context it is a cross-attention block."""

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(width)
        self.attention = Attention(width, heads)
        self.mlp_norm = RMSNorm(width)
        self.mlp = FeedForward(width, mlp_ratio)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Update the tokens: (b, l, width) -> (b, l, width); with views in the context -> (v * b, l, width)."""
        attended = self.attention(self.attention_norm(x), context)
        if len(x) < len(attended):
            x = x.repeat(len(attended) // len(x), 1, 1)
        x = x + attended
        return x + self.mlp(self.mlp_norm(x))  # type: ignore[no-any-return]

    def with_weights(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Update the tokens, and return the attention weights: (b, l, width) and (b, heads, l, l)."""
        attended, weights = self.attention.with_weights(self.attention_norm(x))
        x = x + attended
        return x + self.mlp(self.mlp_norm(x)), weights


class Encoder(nn.Module):
    """The stack of blocks."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(config.width, config.heads, config.mlp_ratio) for _ in range(config.layers))
        self.norm = RMSNorm(config.width)
        self.activation_checkpointing = config.activation_checkpointing

    def forward(self, x: Tensor) -> Tensor:
        """Encode a set of tokens: (b, l, width) -> (b, l, width)."""
        for block in self.blocks:
            if self.activation_checkpointing and self.training:
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        return self.norm(x)  # type: ignore[no-any-return]

    def attention_weights(self, x: Tensor) -> Iterator[Tensor]:
        """Yield the attention weights of each block, (b, heads, l, l), one block at a time."""
        for block in self.blocks:
            x, weights = block.with_weights(x)  # type: ignore[operator]
            yield weights
