"""The selective scan along a sequence: checks, backends, and how it becomes a fused scan."""
from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from mmmamba.ops.checks import given_tensors
from mmmamba.ops.cpu import native
from mmmamba.ops.cpu.scan import native_scan
from mmmamba.ops.dispatch import FLOAT32_AND_HALVES, FLOATS, Backend, compute_dtype, select, without_autocast
from mmmamba.ops.scan import chunked, exported, reference
from mmmamba.ops.scan.fused import FusedScan, ScanInputs
from mmmamba.ops.triton import scan as triton


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
    *,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Scans a sequence (selective state space), with the arguments and meaning of mamba_ssm's ``selective_scan_fn``.

    With ``d_t = delta_t + delta_bias``, through softplus if ``delta_softplus``, per batch item and channel::

        h_t = exp(d_t A) h_{t-1} + d_t B_t u_t,    y_t = <C_t, h_t> + D u_t,    out_t = y_t silu(z_t)

    State and accumulation are float32 whatever the inputs are, float64 if one of the inputs is; also under autocast.
    Gate included: only the result is rounded.

    Derivatives beyond an ordinary backward pass are those of the backend ``'reference'``, one step at a time. In
    forward mode and inside transforms of ``torch.func`` (grad, vjp, jvp, vmap, nested or not) it is taken by itself,
    and others refuse if they are named. With ``create_graph=True`` it must be named. README.md has a table.

    Args:
        u: Input (batch, channels, length).
        delta: Step sizes, shaped as ``u``.
        A: State matrix (channels, N), real.
        B: Input matrix (batch, groups, N, length), where ``channels`` is a multiple of ``groups``, or
            (batch, N, length) for one group, or (channels, N) if it does not depend on the input.
        C: Output matrix, in one of the shapes of ``B``.
        D: Skip weights (channels,).
        z: Gate, shaped as ``u``.
        delta_bias: Added to ``delta`` (channels,).
        delta_softplus: Whether the step size is softplus(delta + delta_bias).
        return_last_state: Whether to return the state after the last step as well.
        backend: Name of the backend; None for the first that can run these inputs.

    Returns:
        Output (batch, channels, length) in the dtype of ``u``; with ``return_last_state`` also the last state
        (batch, channels, N), float32 or float64.

    Raises:
        ValueError: Shapes do not fit, an input is complex or an integer, or no backend has this name.
        RuntimeError: The named backend cannot run these inputs, or is 'export' and has no last state.
    """
    if u.dim() != 3:
        raise ValueError(f'selective_scan: u must be (batch, channels, length), not {tuple(u.shape)}.')
    channels = u.shape[1]
    if A.dim() != 2 or A.shape[0] != channels:
        raise ValueError(f'selective_scan: A must be ({channels}, N), not {tuple(A.shape)}.')
    if A.shape[1] == 0:
        raise ValueError('selective_scan: A must have at least one state.')
    B, C = _grouped('B', B, u, A), _grouped('C', C, u, A)
    given = given_tensors('selective_scan', (
        ('u', u, u.shape),
        ('delta', delta, u.shape),
        ('A', A, A.shape),
        ('B', B, B.shape),
        ('C', C, C.shape),
        ('D', D, (channels,)),
        ('z', z, u.shape),
        ('delta_bias', delta_bias, (channels,)),
    ))
    if B.dim() == C.dim() == 4 and B.shape[1] != C.shape[1]:
        B, C = _as_many_groups(B, C)
    chosen = select('selective_scan', BACKENDS, given, backend)
    # What a gate multiplies is not rounded before: with an input in float32, every backend returns y in it.
    x = u if z is None else u.to(compute_dtype(*given))
    with without_autocast(u.device.type):
        y, last_state = chosen.run(x, delta, A, B, C, D, delta_bias, delta_softplus)
        if return_last_state and last_state is None:
            raise RuntimeError(f'selective_scan: {chosen.name} has no last state.')
        if z is not None:
            y = y * F.silu(z.to(y.dtype))
        y = y.to(u.dtype)
    return (y, last_state) if return_last_state else y


def _grouped(name: str, matrix: Tensor, u: Tensor, A: Tensor) -> Tensor:
    """Returns B or C as (batch, groups, N, length), or as it is if it is a constant (channels, N)."""
    (batch, channels, length), states = u.shape, A.shape[1]
    given = tuple(matrix.shape)
    if matrix.dim() == 2:
        if given != (channels, states):
            raise ValueError(f'selective_scan: {name} must be ({channels}, {states}), not {given}.')
        return matrix
    if matrix.dim() == 3:
        matrix = matrix.unsqueeze(1)
    if matrix.dim() != 4 or (matrix.shape[0], *matrix.shape[2:]) != (batch, states, length):
        raise ValueError(
            f'selective_scan: {name} must be ({batch}, groups, {states}, {length}), ({batch}, {states}, {length}) or '
            f'({channels}, {states}), not {given}.'
        )
    groups = matrix.shape[1]
    if groups == 0 or channels % groups:
        raise ValueError(
            f'selective_scan: {channels} channels cannot be split into the {groups} groups of {name}.'
        )
    return matrix


def _as_many_groups(B: Tensor, C: Tensor) -> tuple[Tensor, ...]:
    """Returns B and C, the one with fewer groups repeated, so that both have as many."""
    groups = max(B.shape[1], C.shape[1])
    if groups % B.shape[1] or groups % C.shape[1]:
        raise ValueError(
            f'selective_scan: the {B.shape[1]} groups of B and the {C.shape[1]} groups of C do not fit together.'
        )
    return tuple(m.to(compute_dtype(m)).repeat_interleave(groups // m.shape[1], dim=1) if m.shape[1] < groups else m
                 for m in (B, C))


def fused(
    scan: FusedScan,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
) -> tuple[Tensor, Tensor]:
    """Takes and returns what :func:`mmmamba.ops.scan.reference.scan` does, but y in the dtype of ``u``.

    The groups of channels are the heads of ``scan``. A constant B or C becomes a weight W of the states in the output,
    and ones in its own place: what is kept for every token does not grow with the channels. The states are those over
    B then, and the last one is multiplied by it.
    """
    batch, channels, length = u.shape
    states = A.shape[1]
    groups = B.shape[1] if B.dim() == 4 else C.shape[1] if C.dim() == 4 else 1
    heads = (groups, channels // groups)
    B, C = B.float(), C.float()  # once: gradients add up, then are rounded
    W = None
    for matrix in (B, C):
        if matrix.dim() == 2:
            W = matrix if W is None else W * matrix
    per_token = [
        matrix if matrix.dim() == 4 else
        torch.ones((), dtype=torch.float32, device=u.device).expand(batch, groups, states, length)
        for matrix in (B, C)
    ]
    y, last_state = scan(ScanInputs(
        x=u.transpose(1, 2),
        projected=torch.cat(per_token, dim=2).permute(0, 3, 1, 2),
        delta=delta.transpose(1, 2),
        dt_weight=None,
        bias=None if delta_bias is None else delta_bias.float().reshape(heads),
        A=A.float().reshape(*heads, states),
        D=None if D is None else D.float().reshape(heads),
        W=None if W is None else W.reshape(*heads, states),
        directions=('h',),
        width=length,
        softplus=delta_softplus,
    ))
    last_state = last_state.reshape(batch, channels, states)
    return y.transpose(1, 2), last_state if B.dim() == 4 else last_state * B


BACKENDS = (
    Backend('cpu', partial(fused, native_scan), FLOAT32_AND_HALVES, ('cpu',), native.unavailable),
    Backend('triton', partial(fused, triton.triton_scan), FLOAT32_AND_HALVES, triton.DEVICES, triton.unavailable),
    Backend('torch', chunked.scan, FLOATS),
    Backend('reference', reference.scan, FLOATS, transformable=True),
    Backend('export', exported.selective_scan, FLOAT32_AND_HALVES, ('cpu',), exported.unavailable),
)
"""In order of preference. ``run`` takes and returns what :func:`mmmamba.ops.scan.reference.scan` does; ``'export'``
has None for the last state."""
