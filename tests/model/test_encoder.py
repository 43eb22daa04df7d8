from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from lexicell.model.encoder import Attention, Block, Encoder, EncoderConfig, FeedForward
from lexicell.model.heads import CountDecoder
from lexicell.model.norm import RMSNorm


def moved(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0.1, 0.3, generator=generator)
    return module


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def gradients(function: Callable[[Tensor], Tensor], x: Tensor, parameters: list[Tensor]) -> tuple[Tensor, ...]:
    x = x.clone().requires_grad_()
    y = function(x)
    return (y.detach(), *torch.autograd.grad(y, [x, *parameters], normal(*y.shape, seed=2)))


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", [(7, 12), (2, 5, 3, 12)])
def test_rms_norm_and_its_gradients_are_pytorchs(affine: bool, shape: tuple[int, ...]) -> None:
    norm = moved(RMSNorm(12, elementwise_affine=affine))
    parameters = list(norm.parameters())
    ours = gradients(norm, normal(*shape), parameters)
    theirs = gradients(lambda x: F.rms_norm(x, (12,), norm.weight if affine else None), normal(*shape), parameters)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)


def test_rms_norm_of_zeros_is_zero_and_has_a_finite_gradient() -> None:
    _, grad = gradients(RMSNorm(4), torch.zeros(3, 4), [])
    assert grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_rms_norm_keeps_the_precision_of_its_input(dtype: torch.dtype) -> None:
    norm = moved(RMSNorm(8))
    x = normal(5, 8)
    y = norm(x.to(dtype))
    assert y.dtype == dtype
    torch.testing.assert_close(y.float(), norm(x), rtol=2e-2, atol=2e-2)


def test_feed_forward_and_its_gradients_are_those_of_swiglu_written_out() -> None:
    mlp = moved(FeedForward(16, 2.0))
    parameters = list(mlp.parameters())
    ours = gradients(mlp, normal(3, 5, 16), parameters)
    theirs = gradients(lambda x: mlp.down(F.silu(mlp.gate(x)) * mlp.up(x)), normal(3, 5, 16), parameters)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-4)


def test_attending_to_one_token_is_what_softmax_over_it_gives() -> None:
    attention = moved(Attention(16, 4))
    x, context = normal(2, 5, 16), normal(2, 1, 16, seed=3)
    q, k, v = attention.project(x, context)
    expected = attention.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(attention(x, context).expand(2, 5, 16), expected)


@pytest.mark.parametrize("n_context", [1, 9])
def test_views_of_the_same_cells_are_decoded_as_if_each_were_asked_apart(n_context: int) -> None:
    decoder = moved(CountDecoder(16, 4, layers=2, mlp_ratio=2.0, n_classes=6))
    genes, context = normal(3, 5, 16), normal(6, n_context, 16, seed=3)
    depth = torch.tensor([1e3, 5e3, 2e4])
    together = decoder(genes, depth, context)
    torch.testing.assert_close(together, torch.cat([decoder(genes, depth, half) for half in context.chunk(2)]))
    torch.testing.assert_close(together, decoder(genes.repeat(2, 1, 1), depth.repeat(2), context))


class Watch(TorchDispatchMode):
    """Notes which operations run, and the size of the largest tensor that comes out of one."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        self.names.add(func.overloadpacket.__name__)
        for value in out if isinstance(out, tuple | list) else [out]:
            if isinstance(value, Tensor):
                self.largest = max(self.largest, value.numel())
        return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_flash_attention_runs_and_no_matrix_of_all_pairs_is_made(dtype: torch.dtype) -> None:
    length, width = 700, 16
    blocks = [moved(Block(width, 2, 2.0)).to(dtype) for _ in range(2)]
    x = normal(1, length, width).to(dtype).requires_grad_()
    with Watch() as watch:
        y = blocks[1](normal(1, 650, width).to(dtype), blocks[0](x))  # self-attention, then cross-attention
        y.float().square().sum().backward()
    assert "_scaled_dot_product_flash_attention_for_cpu" in watch.names
    assert "_scaled_dot_product_flash_attention_for_cpu_backward" in watch.names
    assert watch.largest < 650 * length / 4


def test_pytorch_chooses_flash_attention_for_our_queries_and_keys() -> None:
    q, k, v = Attention(32, 2).project(normal(2, 40, 32), normal(2, 30, 32))
    assert torch._fused_sdp_choice(q, k, v) == SDPBackend.FLASH_ATTENTION.value
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):  # an error if it could not
        F.scaled_dot_product_attention(q, k, v)


@pytest.mark.gpu
def test_flash_attention_runs_on_a_gpu_in_mixed_precision() -> None:
    encoder = moved(Encoder(EncoderConfig(width=64, layers=1, heads=1))).cuda()
    with torch.autocast("cuda", torch.bfloat16), sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        y = encoder(normal(2, 129, 64).cuda())
    y.float().sum().backward()
    assert y.dtype == torch.float32


def test_mixed_precision_leaves_the_stream_and_its_norms_in_float32() -> None:
    encoder = moved(Encoder(EncoderConfig(width=32, layers=2, heads=2)))
    seen: list[torch.dtype] = []
    for module in encoder.modules():
        if isinstance(module, RMSNorm) and module.elementwise_affine:
            module.register_forward_hook(lambda _module, inputs, out: seen.extend([inputs[0].dtype, out.dtype]))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = encoder(normal(2, 9, 32))
    assert set(seen) == {torch.float32}
    torch.testing.assert_close(rounded, encoder(normal(2, 9, 32)), rtol=0.1, atol=0.1)


def kept_bytes(length: int, activation_checkpointing: bool) -> int:
    """Bytes that the forward pass keeps for the backward pass, weights left out."""
    config = EncoderConfig(width=16, layers=4, heads=2, activation_checkpointing=activation_checkpointing)
    encoder = moved(Encoder(config)).train()
    weights = {p.untyped_storage().data_ptr() for p in encoder.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        encoder(normal(1, length, 16).requires_grad_())
    return sum(kept.values())


def test_memory_grows_in_line_with_length_and_checkpointing_keeps_little_of_it() -> None:
    plain, long = kept_bytes(512, False), kept_bytes(2048, False)
    assert 3.9 < long / plain < 4.1
    lean, lean_long = kept_bytes(512, True), kept_bytes(2048, True)
    assert 3.9 < lean_long / lean < 4.1
    assert lean < plain / 5


def test_the_path_that_returns_weights_equals_the_fast_one():
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig(width=32, layers=3, heads=4)).eval()
    x = torch.randn(2, 17, 32)
    with torch.no_grad():
        fast, eager, seen = encoder(x), x, []
        for block in encoder.blocks:
            eager, weights = block.with_weights(eager)
            seen.append(weights)
        torch.testing.assert_close(encoder.norm(eager), fast, atol=1e-5, rtol=1e-5)
        for weights, again in zip(seen, encoder.attention_weights(x), strict=True):
            assert weights.shape == (2, 4, 17, 17)
            torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 17))
            torch.testing.assert_close(weights, again)
