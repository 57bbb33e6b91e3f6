"""MambaVision (arXiv 2407.08083): the stem, the convolutional block, and the blocks of tokens in windows."""
from __future__ import annotations

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmmamba.errors import InputError
from mmmamba.layers.common import ConvNormAct, DropPath
from mmmamba.layers.ss2d import init_ssm_
from mmmamba.ops import selective_scan

_NORM = partial(nn.BatchNorm2d, eps=1e-4)


class ConvStem(nn.Module):
    """Two 3x3 convolutions of stride 2, each with batch norm and ReLU (MambaVision, section 3.1).

    Args:
        in_channels: Channels of the image.
        hidden_channels: Channels between the two.
        out_channels: C.

    Shape:
        (B, in_channels, H, W) to (B, C, ceil(H / 4), ceil(W / 4)).
    """

    def __init__(self, in_channels: int, hidden_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = ConvNormAct(in_channels, hidden_channels, 3, 2, norm_layer=_NORM, act_layer=nn.ReLU)
        self.conv2 = ConvNormAct(hidden_channels, out_channels, 3, 2, norm_layer=_NORM, act_layer=nn.ReLU)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x))


class ResidualConvBlock(nn.Module):
    """``x + DropPath(BN(conv(GELU(BN(conv(x))))))`` with 3x3 convolutions (MambaVision, equation 1).

    The GELU is the tanh approximation, which the published weights were trained with.

    Args:
        channels: C of the input and the output.
        drop_path: Probability of dropping the residual branch.

    Shape:
        (B, C, H, W) to (B, C, H, W).
    """

    def __init__(self, channels: int, drop_path: float = 0.0) -> None:
        super().__init__()
        conv = partial(ConvNormAct, channels, channels, 3, bias=True, norm_layer=nn.BatchNorm2d)
        self.conv1 = conv(act_layer=partial(nn.GELU, approximate='tanh'))
        self.conv2 = conv(act_layer=nn.Identity)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.conv2(self.conv1(x)))


class Attention(nn.Module):
    """Multi-head self-attention, ``proj(softmax(q kᵀ / √d) v)`` in each head of d channels.

    Args:
        channels: C of the input and the output.
        num_heads: Heads, which share the channels evenly.

    Shape:
        (B, L, C) to (B, L, C).
    """

    def __init__(self, channels: int, num_heads: int) -> None:
        super().__init__()
        if num_heads < 1 or channels % num_heads:
            raise InputError(f'num_heads must divide the {channels} channels, got {num_heads}')
        self.num_heads = num_heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x).unflatten(2, (3, self.num_heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class MambaVisionMixer(nn.Module):
    """Mixer of the tokens of a window (MambaVision, equation 6 and algorithm 1)::

        x, z = split(SiLU(conv(in_proj(input))))                   conv: depthwise, 3 tokens wide, not causal
        out  = out_proj(concat(scan(x), z))

    ``scan`` goes over the tokens once, forward. Its step is ``softplus(dt_proj(dt) + dt_proj.bias)``: the bias counts
    twice, since ``dt_proj`` adds it already. Algorithm 1 adds it once; the published weights were trained with two.

    Args:
        channels: C of the input and the output, even; D = C / 2 of them are scanned.
        d_state: N, states of every scanned channel.
        scan_backend: Backend of :func:`mmmamba.ops.selective_scan`; None takes the fastest that can run.

    Shape:
        (B, L, C) to (B, L, C).
    """

    def __init__(self, channels: int, d_state: int = 8, scan_backend: str | None = None) -> None:
        super().__init__()
        inner = channels // 2
        self.sizes = (math.ceil(channels / 16), d_state, d_state)
        self.scan_backend = scan_backend
        self.in_proj = nn.Linear(channels, channels, bias=False)
        # A map of one row, so that the tokens can stay in channels-last order.
        self.conv = nn.Conv2d(channels, channels, (1, 3), padding=(0, 1), groups=channels, bias=False)
        self.x_proj = nn.Linear(inner, sum(self.sizes), bias=False)
        self.dt_proj = nn.Linear(self.sizes[0], inner)
        self.A_log = nn.Parameter(torch.empty(inner, d_state))
        self.D = nn.Parameter(torch.empty(inner))
        self.out_proj = nn.Linear(channels, channels, bias=False)
        init_ssm_('mamba', self.A_log, self.D, self.dt_proj.weight, self.dt_proj.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        xz = self.in_proj(tokens).transpose(1, 2).unsqueeze(2)
        x, z = F.silu(self.conv(xz)).squeeze(2).transpose(1, 2).chunk(2, dim=2)
        dt, B, C = self.x_proj(x).split(self.sizes, dim=2)
        y: Tensor = selective_scan(  # type: ignore[assignment]  # a pair only where the last state is asked for
            x.transpose(1, 2),
            self.dt_proj(dt).transpose(1, 2),
            -self.A_log.exp(),
            B.transpose(1, 2),
            C.transpose(1, 2),
            self.D,
            delta_bias=self.dt_proj.bias,
            delta_softplus=True,
            backend=self.scan_backend)
        return self.out_proj(torch.cat([y.transpose(1, 2), z], dim=2))


class MambaVisionBlock(nn.Module):
    """A token mixer and an MLP, each in a residual branch (MambaVision, equation 5)::

        x = x + DropPath(scale1 · mixer(LN(x)))
        x = x + DropPath(scale2 · MLP(LN(x)))

    Args:
        channels: C of the input and the output; the MLP has four times as many in between.
        mixer: (B, L, C) to (B, L, C): a :class:`MambaVisionMixer` or an :class:`Attention`.
        layer_scale: What the scales, a number a channel, start from; None for none.
        drop_path: Probability of dropping a residual branch.
        with_cp: Recompute the block in the backward pass, rather than keep its activations.

    Shape:
        (B, L, C) to (B, L, C).
    """

    def __init__(
        self,
        channels: int,
        mixer: nn.Module,
        layer_scale: float | None = None,
        drop_path: float = 0.0,
        with_cp: bool = False,
    ) -> None:
        super().__init__()
        self.with_cp = with_cp
        self.norm1 = nn.LayerNorm(channels)
        self.mixer = mixer
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels))
        self.drop_path = DropPath(drop_path)
        self.scale1, self.scale2 = (
            None if layer_scale is None else nn.Parameter(torch.full((channels, ), float(layer_scale)))
            for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        if self.with_cp and x.requires_grad:
            return checkpoint(self._residuals, x, use_reentrant=False)
        return self._residuals(x)

    def _residuals(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(_scaled(self.mixer(self.norm1(x)), self.scale1))
        return x + self.drop_path(_scaled(self.mlp(self.norm2(x)), self.scale2))


def _scaled(x: Tensor, scale: Tensor | None) -> Tensor:
    return x if scale is None else x * scale


class Windowed(nn.Sequential):
    """Cuts a map into square windows, runs its blocks on the tokens of each, and puts the map together again.

    The map is padded with zeros at the bottom and the right to whole windows. To the blocks the padding is tokens like
    the others: nothing masks it, and it costs as much, so a window larger than the map makes work. Published weights
    are used to that.

    Args:
        window_size: Side of a window, in pixels of the map.
        blocks: In sequence; each takes (windows, window_size², C) and keeps that shape.

    Shape:
        (B, C, H, W) to (B, C, H, W).
    """

    def __init__(self, window_size: int, *blocks: nn.Module) -> None:
        super().__init__(*blocks)
        self.window_size = window_size

    def forward(self, x: Tensor) -> Tensor:
        size, (batch, channels, height, width) = self.window_size, x.shape
        rows, columns = -(-height // size), -(-width // size)
        x = F.pad(x.permute(0, 2, 3, 1), (0, 0, 0, columns * size - width, 0, rows * size - height))
        windows = x.view(batch, rows, size, columns, size, channels).transpose(2, 3)
        tokens = super().forward(windows.reshape(batch * rows * columns, size * size, channels))
        windows = tokens.view(batch, rows, columns, size, size, channels).transpose(2, 3)
        x = windows.reshape(batch, rows * size, columns * size, channels)
        return x[:, :height, :width].permute(0, 3, 1, 2)

    def extra_repr(self) -> str:
        return f'window_size={self.window_size}'
