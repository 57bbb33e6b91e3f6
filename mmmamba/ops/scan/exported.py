"""The scans as operators for exporters, which know nothing of backends, names of directions or this package.

While a program is exported (``torch.export``, ``torch.onnx.export``), the backend ``'export'`` puts one of two
operators into it for each scan. Directions are tables, so that one operator serves every pattern::

    mmmamba::exported_ss2d_scan(x, projected, dt_weight, bias, A, D, orders, places) -> y
    mmmamba::exported_selective_scan(x, projected, delta, A, D) -> y

Everything is float32, and pixels come before channels:

=============  ======================  =====================================================================
x, y           (B, P, D)               P pixels or tokens of D channels
projected      (B, P, K, R + 2 N)      dt (R), B (N) and C (N) of every pixel in each of K directions
dt_weight      (K, D, R)               step sizes are softplus(dt_weight dt + bias)
bias           (K, D)
A, D           (K, D, N), (K, D)
orders         (K, T), int64           the pixel of every step; P for a padded one: zero x, B and C, and dt zero
places         (K, P), int64           the step that visits a pixel; T if none does
=============  ======================  =====================================================================

The second is one scan of a sequence: projected (B, P, 2 N) has B and C, delta (B, P, D) are the final step sizes, A is
(D, N) and D is (D,).
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mmmamba.ops.scan import chunked
from mmmamba.ops.scan.orders import visited_pixels
from mmmamba.ops.scan.reference import step_sizes

IS_EXPORTING: Callable[[], bool] = getattr(torch.compiler, 'is_exporting', lambda: False)
"""Whether a program is being exported; PyTorch 2.4 cannot tell."""


@torch.library.custom_op('mmmamba::exported_ss2d_scan', mutates_args=())
def exported_ss2d_scan(x: Tensor, projected: Tensor, dt_weight: Tensor, bias: Tensor, A: Tensor, D: Tensor,
                       orders: Tensor, places: Tensor) -> Tensor:
    """Computes y in operations of PyTorch, slowly: what an exporter may put in the operator's place."""
    rank, states = dt_weight.shape[2], A.shape[2]
    x, projected = F.pad(x, (0, 0, 0, 1)), F.pad(projected, (0, 0, 0, 0, 0, 1))
    total = torch.zeros_like(x[:, :-1])
    for k, order in enumerate(orders):
        dt, B, C = projected[:, order, k].transpose(1, 2).split([rank, states, states], dim=1)
        y, _ = chunked.scan(x[:, order].transpose(1, 2), dt_weight[k] @ dt, A[k], B[:, None], C[:, None], D[k],
                            bias[k], True)
        total = total + F.pad(y, (0, 1))[:, :, places[k]].transpose(1, 2)
    return total


@exported_ss2d_scan.register_fake
def _(x: Tensor, *_: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@torch.library.custom_op('mmmamba::exported_selective_scan', mutates_args=())
def exported_selective_scan(x: Tensor, projected: Tensor, delta: Tensor, A: Tensor, D: Tensor) -> Tensor:
    """Computes y in operations of PyTorch, slowly."""
    B, C = projected.transpose(1, 2).unsqueeze(1).chunk(2, dim=2)
    return chunked.scan(x.transpose(1, 2), delta.transpose(1, 2), A, B, C, D, None, False)[0].transpose(1, 2).clone()


@exported_selective_scan.register_fake
def _(x: Tensor, *_: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def unavailable() -> str | None:
    """Returns why the backend cannot run now, or None if it can."""
    return None if IS_EXPORTING() else 'It is for programs that are being exported.'


def order_tables(directions: Sequence[str], height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Returns ``orders`` and ``places`` of a map, see above, in operations that can be traced for all sizes."""
    pixels = height * width
    # Padded with zeros: a program for open sizes would keep any other value as it is in the example.
    orders = pad_sequence([visited_pixels(direction, height, width, device) - pixels for direction in directions],
                          batch_first=True) + pixels
    steps = torch.arange(orders.shape[1], device=device).expand_as(orders)
    never = torch.full((len(directions), pixels + 1), orders.shape[1], dtype=torch.int64, device=device)
    return orders, never.scatter(1, orders, steps)[:, :pixels]


def ss2d_scan(x: Tensor, x_proj_weight: Tensor, dt_projs_weight: Tensor, dt_projs_bias: Tensor, A_logs: Tensor,
              Ds: Tensor, directions: Sequence[str]) -> Tensor:
    """Puts the operator into the program; a ``run`` of :data:`mmmamba.ops.scan.ss2d_scan.BACKENDS`."""
    batch, channels, height, width = x.shape
    heads, rows, _ = x_proj_weight.shape
    pixels = x.float().permute(0, 2, 3, 1).flatten(1, 2)
    projected = F.linear(pixels, x_proj_weight.float().flatten(0, 1)).unflatten(2, (heads, rows))
    y = exported_ss2d_scan(
        pixels, projected, dt_projs_weight.float(), dt_projs_bias.float(),
        -torch.exp(A_logs.float()).unflatten(0, (heads, channels)), Ds.float().unflatten(0, (heads, channels)),
        *order_tables(directions, height, width, x.device))
    return y.unflatten(1, (height, width)).permute(0, 3, 1, 2)


def selective_scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None,
                   delta_bias: Tensor | None, delta_softplus: bool) -> tuple[Tensor, None]:
    """Puts an operator for each group of channels into the program; takes what :func:`reference.scan` does.

    The last state is not exported, and None is returned for it.

    Raises:
        ValueError: B or C is constant.
    """
    if B.dim() != 4 or C.dim() != 4:
        raise ValueError('selective_scan: a scan with a constant B or C cannot be exported.')
    groups = B.shape[1]
    own = u.shape[1] // groups
    delta = step_sizes(delta.float(), delta_bias, delta_softplus)
    D = u.new_zeros(u.shape[1], dtype=torch.float32) if D is None else D.float()
    found = []
    for group in range(groups):
        part = slice(group * own, (group + 1) * own)
        per_token = [matrix[:, group].float() for matrix in (B, C)]
        found.append(exported_selective_scan(
            u[:, part].float().transpose(1, 2).contiguous(), torch.cat(per_token, dim=1).transpose(1, 2).contiguous(),
            delta[:, part].transpose(1, 2).contiguous(), A[part].float(), D[part]).transpose(1, 2))
    return torch.cat(found, dim=1), None
