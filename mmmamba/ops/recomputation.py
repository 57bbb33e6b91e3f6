"""Intermediate results that are made again in the backward pass rather than kept."""
from __future__ import annotations

from typing import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mmmamba.ops.dispatch import in_transform


def recomputed(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """``function(*inputs)``; where gradients are recorded, only what goes in is kept, and not what arises within.

    The backward pass calls the function again as far as the last result that it needs. So a matrix product or a
    convolution at its end costs nothing, and what stands before should be cheap beside its memory, as activations,
    products of elements, depthwise convolutions and those from few channels to many are. Inside transforms of
    ``torch.func``, which allow no checkpointing, everything is kept.

    Args:
        function: Deterministic, and without changes to anything outside of it.
        inputs: Its arguments; gradients also reach tensors that it takes from elsewhere.
    """
    if not torch.is_grad_enabled() or in_transform():
        return function(*inputs)
    return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)
