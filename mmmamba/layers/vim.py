"""Vision Mamba, Vim (arXiv 2401.09417): patches with positions, rotary positions, the bidirectional mixer, its block.

Everything between the patches and the outputs is (B, H, W, d), channels last; a sequence is its row-major pixels.
"""
from __future__ import annotations

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmmamba.layers.common import DropPath
from mmmamba.layers.ss2d import init_ssm_
from mmmamba.ops import selective_scan

PATCH_SIZE = 16
ROPE_GRID = 14
"""Rotary positions run from 0 to this, whatever the grid: that of 224 x 224 pixels."""


def resize_bicubic(maps: Tensor, height: int, width: int) -> Tensor:
    """Resizes (B, C, h, w) to (B, C, height, width) in float32 at least; what has that size already is returned."""
    if not torch.compiler.is_compiling() and maps.shape[2:] == (height, width):  # a traced program is for all sizes
        return maps
    precise = maps.to(torch.promote_types(maps.dtype, torch.float32))
    return F.interpolate(precise, (height, width), mode='bicubic', align_corners=False).to(maps.dtype)


class PositionedPatches(nn.Module):
    """Patches of 16 x 16 pixels, projected, plus a learnt embedding of their position (Vim, equation 3).

    Images are padded with zeros at the bottom and the right to whole patches. If their grid is not that of the
    position embedding, this is resized to it (bicubic).

    Args:
        in_channels: Channels of the image.
        channels: d.
        img_size: Height and width of the images whose grid the position embedding has, in pixels.

    Shape:
        (B, in_channels, H, W) to (B, ceil(H / 16), ceil(W / 16), d).
    """

    def __init__(self, in_channels: int, channels: int, img_size: tuple[int, int]) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, channels, PATCH_SIZE, PATCH_SIZE)
        self.pos_embed = nn.Parameter(torch.empty(1, channels, *(-(-side // PATCH_SIZE) for side in img_size)))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        image = F.pad(image, (0, -width % PATCH_SIZE, 0, -height % PATCH_SIZE))
        x = self.proj(image.contiguous(memory_format=torch.channels_last))
        return (x + resize_bicubic(self.pos_embed, *x.shape[-2:])).permute(0, 2, 3, 1)


def rope_tables(height: int, width: int, channels: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Returns cosines and sines of rotary positions on a grid, for :func:`rotate`.

    The first half of the channels knows a token's row, the second its column. Along a side of n tokens, index i is the
    position p = 14 i / n, and the pair m of the d / 4 pairs of a half turns by p · 10000^(-2 m / (d / 2)).

    Args:
        height, width: Of the grid, in tokens.
        channels: d, a multiple of 4.
        like: Has the device and the dtype of the tables.

    Returns:
        Two tables (height, width, d / 2), a number for each pair of channels.
    """
    # Angles in float32 would be off by 1e-6, and rotations accumulate over the blocks. MPS has no float64.
    dtype = torch.float32 if like.device.type == 'mps' else torch.float64
    arange = partial(torch.arange, device=like.device, dtype=dtype)
    pairs = channels // 4
    frequencies = 10000**(-arange(pairs) / pairs)
    rows, columns = ((arange(side) * (ROPE_GRID / side))[:, None] * frequencies for side in (height, width))
    angles = torch.cat([rows[:, None].expand(-1, width, -1), columns.expand(height, -1, -1)], dim=-1)
    return angles.cos().to(like.dtype), angles.sin().to(like.dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns each pair of channels (2j, 2j + 1) of x, (B, H, W, d), by its angle (RoFormer, arXiv 2104.09864)."""
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1).flatten(-2)


class MambaBranch(nn.Module):
    """What Mamba (arXiv 2312.00752, figure 3) computes between its projections, along one sequence::

        u         = SiLU(conv(x))                            conv: depthwise, 4 tokens wide, causal
        dt, B, C  = split(x_proj(u))
        y         = scan(u, softplus(dt_proj(dt) + dt_bias), A, B, C, D) · SiLU(z)

    Args:
        channels: D of the input and the output.
        rank: R of the steps' projection.
        d_state: N, states of every channel.
        scan_backend: Backend of :func:`mmmamba.ops.selective_scan`; None takes the fastest that can run.

    Shape:
        x and z (B, L, D) to (B, L, D).
    """

    def __init__(self, channels: int, rank: int, d_state: int = 16, scan_backend: str | None = None) -> None:
        super().__init__()
        self.sizes = (rank, d_state, d_state)
        self.scan_backend = scan_backend
        # A map of one row, so that the tokens can stay in channels-last order; the last 3 that it returns are cut off.
        self.conv = nn.Conv2d(channels, channels, (1, 4), padding=(0, 3), groups=channels)
        self.x_proj = nn.Linear(channels, sum(self.sizes), bias=False)
        self.dt_proj = nn.Linear(rank, channels, bias=False)
        self.dt_bias = nn.Parameter(torch.empty(channels))
        self.A_log = nn.Parameter(torch.empty(channels, d_state))
        self.D = nn.Parameter(torch.empty(channels))
        init_ssm_('mamba', self.A_log, self.D, self.dt_proj.weight, self.dt_bias)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        x = self.conv(x.transpose(1, 2).unsqueeze(2))[..., :x.shape[1]]
        u = F.silu(x).squeeze(2).transpose(1, 2)
        dt, B, C = self.x_proj(u).split(self.sizes, dim=2)
        y: Tensor = selective_scan(  # type: ignore[assignment]  # a pair only where the last state is asked for
            u.transpose(1, 2),
            self.dt_proj(dt).transpose(1, 2),
            -self.A_log.exp(),
            B.transpose(1, 2),
            C.transpose(1, 2),
            self.D,
            z.transpose(1, 2),
            delta_bias=self.dt_bias,
            delta_softplus=True,
            backend=self.scan_backend)
        return y.transpose(1, 2)


class VimMixer(nn.Module):
    """Bidirectional mixer (Vim, algorithm 1)::

        x, z = split(in_proj(input))
        out  = out_proj((branch(x, z) + reversed branch(reversed x, reversed z)) / 2)

    Args:
        channels: d of the input and the output; D = 2 d are scanned.
        d_state: N, states of every scanned channel.
        halve: Whether the sum of the two branches is halved. The first public version did not, all later ones do.
        scan_backend: Backend of :func:`mmmamba.ops.selective_scan`; None takes the fastest that can run.

    Shape:
        (B, H, W, d) to (B, H, W, d).
    """

    def __init__(self, channels: int, d_state: int = 16, halve: bool = True, scan_backend: str | None = None) -> None:
        super().__init__()
        self.halve = halve
        self.in_proj = nn.Linear(channels, 4 * channels, bias=False)
        self.ahead, self.back = (
            MambaBranch(2 * channels, math.ceil(channels / 16), d_state, scan_backend) for _ in range(2))
        self.out_proj = nn.Linear(2 * channels, channels, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        x, z = self.in_proj(inputs).flatten(1, 2).chunk(2, dim=2)
        y = self.ahead(x, z) + self.back(x.flip(1), z.flip(1)).flip(1)
        return self.out_proj(y / 2 if self.halve else y).view(inputs.shape)


class VimBlock(nn.Module):
    """Block of Vim (figure 2), with rotary positions if tables are given::

        residual = rotate(residual + DropPath(hidden))
        hidden   = mixer(norm(residual))

    A network starts from ``residual`` = 0 and ends with the sum of both. The residual is float32, or float64, also in
    mixed precision.

    Args:
        mixer: (B, H, W, d) to (B, H, W, d).
        norm: Over the last dimension, with a ``weight``.
        drop_path: Probability of dropping the hidden state of a sample before it is added.
        with_cp: Recompute the block in the backward pass, rather than keep its activations.

    Shape:
        hidden and residual (B, H, W, d) to the same; cosines and sines as :func:`rope_tables` returns them.
    """

    def __init__(self, mixer: nn.Module, norm: nn.Module, drop_path: float = 0.0, with_cp: bool = False) -> None:
        super().__init__()
        self.with_cp = with_cp
        self.drop_path = DropPath(drop_path)
        self.norm = norm
        self.mixer = mixer

    def forward(self, hidden: Tensor, residual: Tensor,
                rope: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        if self.with_cp and hidden.requires_grad:
            return checkpoint(self._mix, hidden, residual, rope, use_reentrant=False)
        return self._mix(hidden, residual, rope)

    def _mix(self, hidden: Tensor, residual: Tensor, rope: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        residual = residual + self.drop_path(hidden)
        if rope is not None:
            residual = rotate(residual, *rope)
        # A model in half precision has norms in it too.
        return self.mixer(self.norm(residual.to(self.norm.weight.dtype))), residual  # type: ignore[arg-type]
