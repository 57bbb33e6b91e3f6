"""MambaVision mixer: a selective scan on one half of the channels, a convolution on the other."""
from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmmamba.layers.ssm_init import init_ssm_
from mmmamba.ops import selective_scan


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
