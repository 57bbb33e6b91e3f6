"""The inverted bottleneck in a native kernel that never holds the whole hidden map: for inference."""
from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from mmmamba.ops.cpu import blocks
from mmmamba.ops.dispatch import Tolerance, refusing_forward_mode
from mmmamba.ops.inference_backend import InferenceBackend, refuse_gradient

# Not torch.library.custom_op: its wrapper takes longer than the kernel does on a small map.
torch.library.define(
    'mmmamba::inverted_bottleneck',
    '(Tensor x, Tensor expand_weight, Tensor? expand_bias, Tensor depthwise_weight, Tensor? depthwise_bias, '
    'Tensor? norm_weight, Tensor? norm_bias, float eps, bool skip, str? activation, Tensor? reduce_weight, '
    'Tensor? reduce_bias, Tensor? residual, str? isa=None) -> Tensor',
)
torch.library.impl('mmmamba::inverted_bottleneck', 'cpu', refusing_forward_mode(blocks.inverted_bottleneck))
torch.library.register_autograd('mmmamba::inverted_bottleneck', refuse_gradient)


@torch.library.register_fake('mmmamba::inverted_bottleneck')
def _fake(
    x: Tensor,
    expand_weight: Tensor,
    expand_bias: Tensor | None,
    depthwise_weight: Tensor,
    depthwise_bias: Tensor | None,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    eps: float,
    skip: bool,
    activation: str | None,
    reduce_weight: Tensor | None,
    *_: object,
) -> Tensor:
    outputs = (depthwise_weight if reduce_weight is None else reduce_weight).shape[0]
    size = (x.shape[0], outputs, *x.shape[2:])
    return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


@register_flop_formula(torch.ops.mmmamba.inverted_bottleneck)
def _flops(
    x: torch.Size,
    expand_weight: torch.Size,
    expand_bias: torch.Size | None,
    depthwise_weight: torch.Size,
    depthwise_bias: torch.Size | None,
    norm_weight: torch.Size | None,
    norm_bias: torch.Size | None,
    eps: float,
    skip: bool,
    activation: str | None,
    reduce_weight: torch.Size | None,
    *_: object,
    **__: object,
) -> int:
    weights = expand_weight.numel() + depthwise_weight.numel() + (reduce_weight.numel() if reduce_weight else 0)
    return 2 * x[0] * x[2] * x[3] * weights


BACKEND = InferenceBackend(
    name='cpu',
    run=torch.ops.mmmamba.inverted_bottleneck,
    tolerances={torch.float32: Tolerance(forward=2e-6, gradient=0)},
    devices=('cpu',),
    unavailable=blocks.unavailable,
)
