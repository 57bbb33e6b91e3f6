"""The depthwise convolution in a native kernel that reads and writes every map once: for inference."""
from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from mmmamba.ops.cpu import blocks
from mmmamba.ops.dispatch import Tolerance
from mmmamba.ops.inference_backend import InferenceBackend

# Not torch.library.custom_op: its wrapper takes longer than the kernel does on a small map.
torch.library.define(
    'mmmamba::depthwise_conv',
    '(Tensor x, Tensor weight, Tensor? bias, bool skip, str? activation, Tensor? gate, str? isa=None) -> Tensor',
)
torch.library.impl('mmmamba::depthwise_conv', 'cpu', blocks.depthwise)


@torch.library.register_fake('mmmamba::depthwise_conv')
def _fake(x: Tensor, *_: object) -> Tensor:
    return torch.empty_like(x, memory_format=torch.channels_last)


@register_flop_formula(torch.ops.mmmamba.depthwise_conv)
def _flops(x_shape: torch.Size, *_: object, **__: object) -> int:
    return 2 * 9 * x_shape.numel()


BACKEND = InferenceBackend(
    name='cpu',
    run=torch.ops.mmmamba.depthwise_conv,
    tolerances={torch.float32: Tolerance(forward=2e-6, gradient=0)},
    devices=('cpu',),
    unavailable=blocks.unavailable,
)
