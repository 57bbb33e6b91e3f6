"""The 1x1 convolution in a native kernel that reads and writes every map once: for inference."""
from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from mmmamba.ops.cpu import blocks
from mmmamba.ops.dispatch import Tolerance, refusing_forward_mode
from mmmamba.ops.inference_backend import InferenceBackend, refuse_gradient

# Not torch.library.custom_op: its wrapper takes longer than the kernel does on a small map.
torch.library.define(
    'mmmamba::pointwise_conv',
    '(Tensor x, Tensor weight, Tensor? bias, Tensor? norm_weight, Tensor? norm_bias, float eps, Tensor? gate, '
    'Tensor? gate_weight, Tensor? gate_norm_weight, Tensor? gate_norm_bias, float gate_eps, '
    'str? gate_activation, str? activation, Tensor? residual, str? isa=None) -> Tensor',
)
torch.library.impl('mmmamba::pointwise_conv', 'cpu', refusing_forward_mode(blocks.pointwise))
torch.library.register_autograd('mmmamba::pointwise_conv', refuse_gradient)


@torch.library.register_fake('mmmamba::pointwise_conv')
def _fake(x: Tensor, weight: Tensor, *_: object) -> Tensor:
    size = (x.shape[0], weight.shape[0], *x.shape[2:])
    return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


@register_flop_formula(torch.ops.mmmamba.pointwise_conv)
def _flops(
    x: torch.Size,
    weight: torch.Size,
    bias: torch.Size | None,
    norm_weight: torch.Size | None,
    norm_bias: torch.Size | None,
    eps: float,
    gate: torch.Size | None,
    gate_weight: torch.Size | None,
    *_: object,
    **__: object,
) -> int:
    return 2 * x[0] * x[2] * x[3] * (weight.numel() + (gate_weight.numel() if gate_weight else 0))


BACKEND = InferenceBackend(
    name='cpu',
    run=torch.ops.mmmamba.pointwise_conv,
    tolerances={torch.float32: Tolerance(forward=2e-6, gradient=0)},
    devices=('cpu',),
    unavailable=blocks.unavailable,
)
