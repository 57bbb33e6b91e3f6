"""SS2D: the two-dimensional selective scan as a layer, and how its parameters start."""
from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmmamba.errors import InputError
from mmmamba.layers.common import LayerNorm2d, build_activation, recomputed, replaced
from mmmamba.ops import ss2d_scan
from mmmamba.ops.scan.orders import directions_of

SSM_INITS = ('mamba_yolo', 'mamba')


def init_ssm_(
    name: str,
    A_logs: Tensor,
    Ds: Tensor,
    dt_projs_weight: Tensor,
    dt_projs_bias: Tensor,
    dt_min: float = 1e-3,
    dt_max: float = 1e-1,
) -> None:
    """Fills the parameters of K scans over D channels with N states, in place; those of one scan may lack the K.

    * ``'mamba_yolo'``: what Mamba YOLO's public code starts from. Every A is -1, and the dt projection is standard
      normal, so the step softplus(·) is of order 1 and the memory of order one pixel.
    * ``'mamba'``: Mamba's own (arXiv 2312.00752, section 3.6). A is -1 … -N; the step starts log-uniform in
      [``dt_min``, ``dt_max``], so the memory spans from ten to a thousand pixels.

    Args:
        name: ``'mamba_yolo'`` or ``'mamba'``; ``'reference'`` is the old name of the first.
        A_logs: (K·D, N).
        Ds: (K·D,), the skip; ones in both.
        dt_projs_weight: (K, D, R).
        dt_projs_bias: (K, D).
        dt_min: Smallest initial step of ``'mamba'``.
        dt_max: Largest initial step of ``'mamba'``.

    Raises:
        InputError: There is no initialisation of that name.
    """
    if name == 'reference':
        warnings.warn("ssm_init='reference' is now called 'mamba_yolo'", FutureWarning, stacklevel=2)
        name = 'mamba_yolo'
    if name not in SSM_INITS:
        raise InputError(f'ssm_init must be one of {SSM_INITS}, got {name!r}')
    with torch.no_grad():
        Ds.fill_(1)
        if name == 'mamba_yolo':
            A_logs.zero_()
            dt_projs_weight.normal_()
            dt_projs_bias.normal_()
            return
        A_logs.copy_(torch.arange(1, A_logs.shape[1] + 1, dtype=A_logs.dtype).log().expand_as(A_logs))
        bound = dt_projs_weight.shape[-1]**-0.5
        dt_projs_weight.uniform_(-bound, bound)
        step = dt_projs_bias.uniform_(math.log(dt_min), math.log(dt_max)).exp_()
        step.add_(torch.log(-torch.expm1(-step)))  # the inverse of softplus


class SS2D(nn.Module):
    """2-D selective scan (VMamba, arXiv 2401.10166), with a gate as in Mamba YOLO, unless ``gated`` is False::

        x, z = split(in_proj(input))                                     no z without the gate
        y    = out_norm(scan(act(dwconv(x))))
        out  = out_proj(y · act(z))

    ``scan`` walks the map in several directions, each with its own data-dependent step, input and output matrices, and
    sums what they return.

    Args:
        channels: C of the input and the output.
        d_state: N, states of every scanned channel.
        ssm_ratio: D / C, where D channels are scanned.
        act: ``'gelu'``, ``'silu'`` or ``'relu'``, after the depthwise convolution and on the gate.
        gated: Whether the scan's output is multiplied with a gate.
        conv_bias: Whether the depthwise convolution has a bias.
        pattern: ``'cross'``, ``'atrous'`` or names of directions, see :func:`mmmamba.ops.ss2d_scan`.
        ssm_init: ``'mamba_yolo'`` or ``'mamba'``, see :func:`mmmamba.layers.ss2d.init_ssm_`.
        scan_backend: Backend of :func:`mmmamba.ops.ss2d_scan`; None takes the fastest that can run.

    Shape:
        (B, C, H, W) to (B, C, H, W).
    """

    def __init__(
        self,
        channels: int,
        d_state: int = 16,
        ssm_ratio: float = 2.0,
        act: str = 'gelu',
        gated: bool = True,
        conv_bias: bool = True,
        pattern: str | Sequence[str] = 'cross',
        ssm_init: str = 'mamba_yolo',
        scan_backend: str | None = None,
    ) -> None:
        super().__init__()
        inner = int(ssm_ratio * channels)
        self.d_state = d_state
        self.ssm_init = ssm_init
        self.act = build_activation(act)
        self.gated = gated
        self.scan_backend = scan_backend
        self.in_proj = nn.Conv2d(channels, 2 * inner if gated else inner, 1, bias=False)
        self.conv2d = nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=conv_bias)
        self.out_norm = LayerNorm2d(inner, eps=1e-5)
        self.out_proj = nn.Conv2d(inner, channels, 1, bias=False)
        self.set_directions(pattern)

    def set_directions(self, pattern: str | Sequence[str]) -> None:
        """Gives the layer these directions, with scans that start anew; see the argument ``pattern``."""
        self.directions = directions_of(pattern)
        count, inner, rank = len(self.directions), self.conv2d.in_channels, math.ceil(self.in_proj.in_channels / 16)
        self.x_proj_weight = nn.Parameter(torch.empty(count, rank + 2 * self.d_state, inner))
        self.dt_projs_weight = nn.Parameter(torch.empty(count, inner, rank))
        self.dt_projs_bias = nn.Parameter(torch.empty(count, inner))
        self.A_logs = nn.Parameter(torch.empty(count * inner, self.d_state))
        self.Ds = nn.Parameter(torch.empty(count * inner))
        nn.init.uniform_(self.x_proj_weight, -inner**-0.5, inner**-0.5)  # nn.Linear's own, for each direction
        init_ssm_(self.ssm_init, self.A_logs, self.Ds, self.dt_projs_weight, self.dt_projs_bias)

    def forward(self, x: Tensor) -> Tensor:

        def project(x: Tensor) -> tuple[Tensor, ...]:
            x, *z = self.in_proj(x).split(self.conv2d.in_channels, dim=1)
            return *map(self.act, z), self.act(self.conv2d(x))

        def gate_and_project(y: Tensor, *gate: Tensor) -> Tensor:
            y = self.out_norm(y)
            if self.gated:
                y = y * gate[0]
            return self.out_proj(y.to(dtype))

        # For the backward pass this keeps the input, the gate, and what goes into and comes out of the scan.
        random = replaced(self.in_proj, self.conv2d, self.out_proj)
        *gate, u = recomputed(project, x, random=random)
        dtype = u.dtype
        return recomputed(gate_and_project, self.scan(u), *gate, random=random)

    def scan(self, u: Tensor) -> Tensor:
        """Returns the sum of the directions' scans of u, (B, D, H, W)."""
        if u.dtype == torch.float16:
            u = u.float()  # the sum of the directions, before its norm, may exceed float16's range
        return ss2d_scan(
            u, self.x_proj_weight, self.dt_projs_weight, self.dt_projs_bias, self.A_logs, self.Ds,
            pattern=self.directions, backend=self.scan_backend)

    def scan_direction(self, u: Tensor, k: int) -> Tensor:
        """Returns the scan of u, (B, D, H, W), in direction number k alone."""
        if u.dtype == torch.float16:
            u = u.float()  # as above
        own = slice(k, k + 1)
        A_logs, Ds = (parameter.chunk(len(self.directions))[k] for parameter in (self.A_logs, self.Ds))
        return ss2d_scan(
            u, self.x_proj_weight[own], self.dt_projs_weight[own], self.dt_projs_bias[own], A_logs, Ds,
            pattern=self.directions[own], backend=self.scan_backend)
