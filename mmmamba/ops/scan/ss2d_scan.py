"""The fused two-dimensional scan of visual Mambas: checks, backends, and how a map becomes what they scan."""
from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mmmamba.ops.checks import given_tensors, require_map
from mmmamba.ops.cpu import native
from mmmamba.ops.cpu.scan import native_scan
from mmmamba.ops.dispatch import FLOAT32_AND_HALVES, FLOATS, Backend, compute_dtype, select, without_autocast
from mmmamba.ops.scan import chunked, exported, reference
from mmmamba.ops.scan.fused import FusedScan, ScanInputs
from mmmamba.ops.scan.orders import directions_of, scan_order
from mmmamba.ops.triton import scan as triton

BFLOAT16_CONVOLUTIONS = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def ss2d_scan(
    x: Tensor,
    x_proj_weight: Tensor,
    dt_projs_weight: Tensor,
    dt_projs_bias: Tensor,
    A_logs: Tensor,
    Ds: Tensor,
    *,
    pattern: str | Sequence[str] = 'cross',
    backend: str | None = None,
) -> Tensor:
    """Projects every pixel, scans the map in K directions (selective state space) and sums the results.

    For direction k, with ``A = -exp(A_logs)``, visiting the pixels t of ``x`` in its order::

        [dt, B, C]_t = x_proj_weight[k] x_t           delta_t = softplus(dt_projs_weight[k] dt_t + dt_projs_bias[k])
        h_t = exp(delta_t A) h_{t-1} + delta_t B_t x_t            y_t += <C_t, h_t> + Ds x_t

    State and accumulation are float32 whatever the inputs are, float64 if one of the inputs is; also under autocast.
    With a bfloat16 ``x``, the backend ``'cpu'`` may round dt, B and C to bfloat16.

    Derivatives beyond an ordinary backward pass are those of the backend ``'reference'``, one step at a time. In
    forward mode and inside transforms of ``torch.func`` (grad, vjp, jvp, vmap, nested or not) it is taken by itself,
    and others refuse if they are named. With ``create_graph=True`` it must be named. README.md has a table.

    Args:
        x: Map (batch, channels, height, width). Memory in channels_last spares a copy.
        x_proj_weight: (K, R + 2 N, channels); its rows make dt (R), B (N) and C (N), in this order.
        dt_projs_weight: (K, channels, R).
        dt_projs_bias: (K, channels).
        A_logs: (K channels, N), directions first.
        Ds: Skip weights (K channels,).
        pattern: 'cross' (row-major, column-major and both reversed; Mamba YOLO, VMamba), 'atrous' (each of four
            directions visits its own quarter of the pixels; EfficientVMamba), or names of directions in
            :data:`mmmamba.ops.scan.orders.ORDERS`, for example ``('h', 'v_flip', 'w2', 'w7')`` (LocalMamba).
        backend: Name of the backend; None for the first that can run these inputs.

    Returns:
        (batch, channels, height, width) in the dtype of ``x`` and in channels_last memory.

    Raises:
        ValueError: Shapes do not fit, an input is complex or an integer, or no pattern, direction or backend has
            this name.
        RuntimeError: The named backend cannot run these inputs.
    """
    require_map('ss2d_scan', x)
    if A_logs.dim() != 2 or A_logs.shape[1] == 0:
        raise ValueError(
            f'ss2d_scan: A_logs must be (K * channels, N) with at least one state, not {tuple(A_logs.shape)}.'
        )
    if dt_projs_weight.dim() != 3:
        raise ValueError(f'ss2d_scan: dt_projs_weight must be (K, channels, R), not {tuple(dt_projs_weight.shape)}.')
    directions = directions_of(pattern)
    count, channels, states, rank = len(directions), x.shape[1], A_logs.shape[1], dt_projs_weight.shape[2]
    given = given_tensors('ss2d_scan', (
        ('x', x, x.shape),
        ('x_proj_weight', x_proj_weight, (count, rank + 2 * states, channels)),
        ('dt_projs_weight', dt_projs_weight, (count, channels, rank)),
        ('dt_projs_bias', dt_projs_bias, (count, channels)),
        ('A_logs', A_logs, (count * channels, states)),
        ('Ds', Ds, (count * channels,)),
    ))
    if len(given) < 6:
        raise ValueError('ss2d_scan needs all of its tensors, and one is None.')
    chosen = select('ss2d_scan', BACKENDS, given, backend)
    with without_autocast(x.device.type):
        y = chosen.run(*given, directions)
        # channels_last; vmap knows no memory formats, but permutations.
        return y.to(x.dtype).permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


def fused(
    scan: FusedScan,
    project: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    x_proj_weight: Tensor,
    dt_projs_weight: Tensor,
    dt_projs_bias: Tensor,
    A_logs: Tensor,
    Ds: Tensor,
    directions: Sequence[str],
) -> Tensor:
    """Runs a fused scan on one projection of the unscanned map, with the directions as its heads.

    Args:
        scan: What :func:`mmmamba.ops.scan.fused.register` returned.
        project: Multiplies pixels (batch, pixels, channels) by the transpose of a weight (rows, channels), of any
            dtypes, and returns float32.

    The others are those of :func:`ss2d_scan`. Returns y (batch, channels, height, width) in the dtype of ``x``.
    """
    batch, channels, height, width = x.shape
    heads, rows, _ = x_proj_weight.shape
    pixels = x.permute(0, 2, 3, 1).flatten(1, 2)  # (batch, pixels, channels)
    projected = project(pixels, x_proj_weight.flatten(0, 1))
    y, _ = scan(ScanInputs(
        x=pixels,
        projected=projected.view(batch, height * width, heads, rows),
        delta=None,
        dt_weight=dt_projs_weight.float(),
        bias=dt_projs_bias.float(),
        A=-torch.exp(A_logs.float()).reshape(heads, channels, A_logs.shape[1]),
        D=Ds.float().reshape(heads, channels),
        W=None,
        directions=directions,
        width=width,
        softplus=True,
    ))
    return y.view(batch, height, width, channels).permute(0, 3, 1, 2)


def project_on_cpu(pixels: Tensor, weight: Tensor) -> Tensor:
    """Returns ``pixels @ weight.t()`` by a convolution: oneDNN's is 1.6 times as fast as MKL's product on AMD CPUs.

    Args:
        pixels: (batch, pixels, channels), contiguous: a map of one row in channels_last memory. With bfloat16 the
            product's factors and result are rounded to it where this CPU has instructions for such products.
        weight: (rows, channels).

    Returns:
        (batch, pixels, rows), contiguous, float32, or float64 of such pixels.
    """
    accumulated = torch.promote_types(pixels.dtype, torch.float32)
    dtype = torch.bfloat16 if pixels.dtype == torch.bfloat16 and BFLOAT16_CONVOLUTIONS else accumulated
    pixels, weight = pixels.to(dtype), weight.to(dtype)
    if pixels.shape[1] == 0:  # which a convolution refuses
        return (pixels @ weight.t()).to(accumulated)
    rows = F.conv2d(pixels.transpose(1, 2).unsqueeze(2), weight[:, :, None, None])
    return rows.squeeze(2).transpose(1, 2).to(accumulated)


def project_in_float32(pixels: Tensor, weight: Tensor) -> Tensor:
    """Returns ``pixels @ weight.t()``, arguments and result as :func:`project_on_cpu` has them."""
    return F.linear(pixels.float(), weight.float())


def unfused(
    scan: Callable[..., tuple[Tensor, Tensor]],
    recompute: bool,
    x: Tensor,
    x_proj_weight: Tensor,
    dt_projs_weight: Tensor,
    dt_projs_bias: Tensor,
    A_logs: Tensor,
    Ds: Tensor,
    directions: Sequence[str],
) -> Tensor:
    """Gathers the sequence of one direction after the other and runs a selective scan on it.

    Args:
        scan: Takes and returns what :func:`mmmamba.ops.scan.reference.scan` does.
        recompute: Whether a backward pass gathers and scans again, rather than keep the sequences of all directions.

    The others are those of :func:`ss2d_scan`. Returns y (batch, channels, height, width), float32 or float64.
    """
    dtype = compute_dtype(x, x_proj_weight, dt_projs_weight, dt_projs_bias, A_logs, Ds)
    channels, height, width = x.shape[1:]
    states, rank = A_logs.shape[1], dt_projs_weight.shape[2]

    def scan_direction(pixels: Tensor, order: Tensor, weight: Tensor, dt_weight: Tensor, *others: Tensor) -> Tensor:
        u = pixels[:, :, order]  # (batch, channels, tokens)
        dt, B, C = torch.einsum('bdl,pd->bpl', u, weight.to(dtype)).split([rank, states, states], dim=1)
        delta = torch.einsum('brl,dr->bdl', dt, dt_weight.to(dtype))
        bias, A_log, D = others
        A = -torch.exp(A_log.to(dtype))
        return scan(u, delta, A, B.unsqueeze(1), C.unsqueeze(1), D, bias, True)[0]

    # Index height * width reads the zero of a padded pixel, and its output is written where nothing reads it.
    pixels = F.pad(x.to(dtype).flatten(2), (0, 1))
    merged = torch.zeros_like(pixels)
    A_logs, Ds = A_logs.view(-1, channels, states), Ds.view(-1, channels)
    for direction, *parameters in zip(directions, x_proj_weight, dt_projs_weight, dt_projs_bias, A_logs, Ds):
        order = scan_order(direction, height, width, x.device)
        if recompute and torch.is_grad_enabled():
            y = checkpoint(scan_direction, pixels, order, *parameters, use_reentrant=False, preserve_rng_state=False)
        else:
            y = scan_direction(pixels, order, *parameters)
        merged = merged.index_add(2, order, y)
    return merged[:, :, : height * width].unflatten(2, (height, width))


BACKENDS = (
    Backend('cpu', partial(fused, native_scan, project_on_cpu), FLOAT32_AND_HALVES, ('cpu',), native.unavailable),
    Backend('triton', partial(fused, triton.triton_scan, project_in_float32), FLOAT32_AND_HALVES, triton.DEVICES,
            triton.unavailable),
    Backend('torch', partial(unfused, chunked.scan, True), FLOATS),
    Backend('reference', partial(unfused, reference.scan, False), FLOATS, transformable=True),
    Backend('export', exported.ss2d_scan, FLOAT32_AND_HALVES, ('cpu',), exported.unavailable),
)
"""In order of preference. ``run`` takes the tensors of :func:`ss2d_scan` and names of directions."""
