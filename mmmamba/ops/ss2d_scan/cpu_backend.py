"""The two-dimensional scan in the native kernel: one projection of the unscanned map, then four fused directions."""
from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from mmmamba.ops.cpu import native
from mmmamba.ops.cpu.autograd import native_scan
from mmmamba.ops.dispatch import Backend
from mmmamba.ops.selective_scan import cpu_backend
from mmmamba.ops.ss2d_scan.orders import scan_orders


@lru_cache(maxsize=64)
def _order(pattern: str, height: int, width: int) -> Tensor:
    with torch.inference_mode(False):  # a kept tensor must serve training too
        return scan_orders(pattern, height, width, torch.device('cpu')).to(torch.int32).contiguous()


def scan(
    x: Tensor,
    x_proj_weight: Tensor,
    dt_projs_weight: Tensor,
    dt_projs_bias: Tensor,
    A_logs: Tensor,
    Ds: Tensor,
    pattern: str,
    isa: str | None = None,
) -> Tensor:
    """Takes what :func:`ss2d_scan` does and returns y in float32; ``isa`` names an instruction set."""
    channels, height, width = x.shape[1:]
    heads, rows = x_proj_weight.shape[:2]
    pixels = x.float().permute(0, 2, 3, 1).flatten(1, 2)  # (batch, pixels, channels)
    projected = pixels @ x_proj_weight.float().flatten(0, 1).t()
    y, _ = native_scan(
        pixels,
        projected.unflatten(-1, (heads, rows)),
        None,
        dt_projs_weight.float(),
        dt_projs_bias.float(),
        -torch.exp(A_logs.float()).unflatten(0, (heads, channels)),
        Ds.float().unflatten(0, (heads, channels)),
        _order(pattern, height, width),
        True,
        isa,
    )
    return y.unflatten(1, (height, width)).permute(0, 3, 1, 2)


BACKEND = Backend(
    name='cpu',
    run=scan,
    tolerances=cpu_backend.BACKEND.tolerances,
    devices=('cpu',),
    unavailable=native.unavailable,
)
