"""What several papers share: activations, normalisation, stochastic depth, convolutions, the MLP, checkpointing."""
from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmmamba.errors import InputError
from mmmamba.ops.dispatch import in_transform

ACTIVATIONS: dict[str, type[nn.Module]] = {'gelu': nn.GELU, 'silu': nn.SiLU, 'relu': nn.ReLU}


def build_activation(name: str) -> nn.Module:
    """Makes the activation called ``name``; raises InputError, with the known names, for any other."""
    if name not in ACTIVATIONS:
        raise InputError(f'activation must be one of {sorted(ACTIVATIONS)}, got {name!r}')
    return ACTIVATIONS[name]()


Outputs = TypeVar('Outputs')

NormLayer = Callable[[int], nn.Module]
"""Makes a normalisation layer for a number of channels, e.g. ``partial(nn.BatchNorm2d, eps=1e-3)``."""

YOLO_BATCH_NORM: NormLayer = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.03)
"""Batch normalisation as the whole YOLO family sets it."""


class LayerNorm2d(nn.LayerNorm):
    """Layer normalisation over the channels of every pixel of an NCHW map.

    It reads the map channels-last, so it costs no copy where the map is ``torch.channels_last`` already, and what it
    returns always is.

    Args:
        channels: C, the number of channels.
        eps: Added to the variance.

    Shape:
        (B, C, H, W) to (B, C, H, W).
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__(channels, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        return layer_norm_2d(x, self.weight, self.bias, self.eps)


def layer_norm_2d(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Computes :class:`LayerNorm2d` of a map (B, C, H, W) with γ and β (C,); parameters are never rounded."""
    dtype = torch.promote_types(x.dtype, weight.dtype)  # a float32 map in a float16 model stays one
    return F.layer_norm(
        x.permute(0, 2, 3, 1), weight.shape, weight.to(dtype), bias.to(dtype), eps).permute(0, 3, 1, 2)


class DropPath(nn.Module):
    """Drops the whole residual branch of a sample (stochastic depth, arXiv 1603.09382), while training.

    Args:
        drop_prob: Probability that a sample's branch is dropped; those kept are divided by ``1 - drop_prob``.
    """

    def __init__(self, drop_prob: float = 0.0) -> None:
        super().__init__()
        if not 0 <= drop_prob < 1:
            raise InputError(f'drop_prob must be in [0, 1), got {drop_prob}')
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.drop_prob == 0:
            return x
        keep = x.new_empty(x.shape[0], *(1, ) * (x.ndim - 1)).bernoulli_(1 - self.drop_prob)
        return x * keep / (1 - self.drop_prob)

    def extra_repr(self) -> str:
        return f'drop_prob={self.drop_prob:g}'


class ConvNormAct(nn.Module):
    """A convolution with 'same' padding, its normalisation and an activation.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Odd side of the kernel; the padding is half of it.
        stride: Stride of the convolution.
        groups: Groups of the convolution; as many as channels for a depthwise one.
        bias: Whether the convolution has a bias of its own.
        norm_layer: Makes the normalisation.
        act_layer: Makes the activation.

    Shape:
        (B, in_channels, H, W) to (B, out_channels, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        stride: int = 1,
        groups: int = 1,
        bias: bool = False,
        norm_layer: NormLayer = YOLO_BATCH_NORM,
        act_layer: Callable[[], nn.Module] = nn.SiLU,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=bias)
        self.norm = norm_layer(out_channels)
        self.act = act_layer()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))


class Mlp(nn.Module):
    """``fc2(act(fc1(x)))``.

    Args:
        channels: C of the input and the output.
        mlp_ratio: Hidden channels over C.
        act: ``'gelu'``, ``'silu'`` or ``'relu'``.

    Shape:
        (B, C, H, W) to (B, C, H, W).
    """

    def __init__(self, channels: int, mlp_ratio: float = 4.0, act: str = 'gelu') -> None:
        super().__init__()
        hidden = int(channels * mlp_ratio)
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.act = build_activation(act)
        self.fc2 = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


def join_squares(x: Tensor) -> Tensor:
    """Puts the four pixels of each 2x2 square on the channels: top left, bottom left, top right, bottom right.

    An odd side is padded with zeros at the bottom or right.

    Args:
        x: (B, C, H, W).

    Returns:
        (B, 4 C, ceil(H / 2), ceil(W / 2)).
    """
    height, width = x.shape[-2:]
    if height % 2 or width % 2:
        x = F.pad(x, (0, width % 2, 0, height % 2))
    return torch.cat([x[..., row::2, column::2] for column in (0, 1) for row in (0, 1)], dim=1)


def recomputed(function: Callable[..., Outputs], *inputs: Tensor, random: bool = False) -> Outputs:
    """Returns ``function(*inputs)``; for a backward pass, what goes in is kept instead of what arises within.

    The backward pass calls the function again as far as the last result that it needs. So a matrix product or a
    convolution at its end costs nothing, and what comes before should be cheap compared with its memory, as
    activations, products of elements, depthwise convolutions and those from few channels to many are. Inside
    transforms of ``torch.func``, which allow no checkpointing, everything is kept.

    Args:
        function: Changes nothing outside of it. Returns a tensor or several.
        inputs: Its arguments; gradients also reach tensors that it takes from elsewhere.
        random: Whether it may draw random numbers, which the backward pass then has to draw again.
    """
    if not torch.is_grad_enabled() or in_transform():
        return function(*inputs)
    return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=random)


def replaced(*layers: nn.Module) -> bool:
    """Returns whether a convolution has been replaced, for example by an adapter, which may have dropout."""
    return any(type(layer) is not nn.Conv2d for layer in layers)
