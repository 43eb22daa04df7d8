"""RMSNorm in the precision of its input, and cheap on a CPU too."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class RMSNorm(nn.RMSNorm):
    """Root mean square normalisation (Zhang & Sennrich 2019).

    In mixed precision the weight follows the input: PyTorch's fused kernel takes no other.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension."""
        weight = self.weight.to(x.dtype) if self.elementwise_affine else None
        # PyTorch has one kernel for it on a GPU, and compiling makes one; else it is seven passes over memory, and
        # more in the backward pass.
        if x.device.type == "cpu" and x.dtype == torch.float32 and not torch.compiler.is_compiling():
            eps = torch.finfo(x.dtype).eps if self.eps is None else self.eps
            return _FewPasses.apply(x, weight, eps)  # type: ignore[no-any-return, no-untyped-call]
        return F.rms_norm(x, self.normalized_shape, weight, self.eps)


class _FewPasses(torch.autograd.Function):
    """RMSNorm in as few passes over memory as plain PyTorch operations allow; keeps nothing but its input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
        """Normalise the last dimension."""
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        inverse = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, inverse, weight)
        y: Tensor = x * inverse
        return y if weight is None else y.mul_(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:
        """Return the gradients of input and weight."""
        x, inverse, weight = ctx.saved_tensors
        product = grad * x
        if weight is None:
            dot, grad_weight = product.sum(dim=-1, keepdim=True), None
            grad_x = grad * inverse
        else:
            dot = (product @ weight).unsqueeze(-1)
            grad_weight = product.flatten(0, -2).T @ inverse.flatten()
            grad_x = torch.mul(grad, weight, out=product).mul_(inverse)
        return grad_x.addcmul_(x, dot * inverse**3, value=-1 / x.shape[-1]), grad_weight, None
