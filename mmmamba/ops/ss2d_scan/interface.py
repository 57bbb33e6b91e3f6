from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from mmmamba.ops.dispatch import require_real, select, without_autocast
from mmmamba.ops.orders import MAP_PATTERNS as PATTERNS
from mmmamba.ops.ss2d_scan.backends import BACKENDS


def ss2d_scan(
    x: Tensor,
    x_proj_weight: Tensor,
    dt_projs_weight: Tensor,
    dt_projs_bias: Tensor,
    A_logs: Tensor,
    Ds: Tensor,
    *,
    pattern: str = 'cross',
    backend: str | None = None,
) -> Tensor:
    """Two-dimensional selective scan: projects every pixel, scans the map in four directions and sums the results.

    For direction k, with ``A = -exp(A_logs)``, visiting the pixels t of ``x`` in the order of the pattern::

        [dt, B, C]_t = x_proj_weight[k] x_t           delta_t = softplus(dt_projs_weight[k] dt_t + dt_projs_bias[k])
        h_t = exp(delta_t A) h_{t-1} + delta_t B_t x_t            y_t += <C_t, h_t> + Ds x_t

    State and accumulation are float32 whatever the inputs are, float64 if one of the inputs is; also under autocast.

    Derivatives beyond an ordinary backward pass are those of the backend ``'reference'``, one step at a time. In
    forward mode and inside transforms of ``torch.func`` (grad, vjp, jvp, vmap, nested or not) it is taken by itself,
    and others refuse if they are named. With ``create_graph=True`` it must be named. Table:
    ``selective_scan/README.md``.

    Args:
        x: Map (batch, channels, height, width). Memory in channels_last spares a copy.
        x_proj_weight: (4, R + 2 N, channels); its rows make dt (R), B (N) and C (N), in this order.
        dt_projs_weight: (4, channels, R).
        dt_projs_bias: (4, channels).
        A_logs: (4 channels, N), directions first.
        Ds: Skip weights (4 channels,).
        pattern: 'cross' (row-major, column-major and both reversed; Mamba YOLO, VMamba) or 'atrous' (each direction
            visits its own quarter of the pixels; EfficientVMamba).
        backend: Name of the backend; None for the first that can run these inputs.

    Returns:
        (batch, channels, height, width) in the dtype of ``x`` and in channels_last memory.

    Raises:
        ValueError: Shapes do not fit, an input is complex or an integer, or no pattern or backend has this name.
        RuntimeError: The named backend cannot run these inputs.
    """
    named = {
        'x': x,
        'x_proj_weight': x_proj_weight,
        'dt_projs_weight': dt_projs_weight,
        'dt_projs_bias': dt_projs_bias,
        'A_logs': A_logs,
        'Ds': Ds,
    }
    require_real('ss2d_scan', named)
    if pattern not in PATTERNS:
        raise ValueError(f'ss2d_scan has no pattern named {pattern!r}; it has {", ".join(PATTERNS)}.')
    _require_shapes(named)
    chosen = select('ss2d_scan', BACKENDS, named.values(), backend)
    with without_autocast(x.device.type):
        y = chosen.run(x, x_proj_weight, dt_projs_weight, dt_projs_bias, A_logs, Ds, pattern)
        # channels_last; vmap knows no memory formats, but permutations.
        return y.to(x.dtype).permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


def _require_shapes(named: Mapping[str, Tensor]) -> None:
    x, A_logs, dt_projs_weight = named['x'], named['A_logs'], named['dt_projs_weight']
    if x.dim() != 4:
        raise ValueError(f'ss2d_scan: x must be (batch, channels, height, width), not {tuple(x.shape)}.')
    if A_logs.dim() != 2 or A_logs.shape[1] == 0:
        raise ValueError(
            f'ss2d_scan: A_logs must be (4 * channels, N) with at least one state, not {tuple(A_logs.shape)}.'
        )
    if dt_projs_weight.dim() != 3:
        raise ValueError(f'ss2d_scan: dt_projs_weight must be (4, channels, R), not {tuple(dt_projs_weight.shape)}.')
    channels, states, rank = x.shape[1], A_logs.shape[1], dt_projs_weight.shape[2]
    expected = {
        'x_proj_weight': (4, rank + 2 * states, channels),
        'dt_projs_weight': (4, channels, rank),
        'dt_projs_bias': (4, channels),
        'A_logs': (4 * channels, states),
        'Ds': (4 * channels,),
    }
    for name, shape in expected.items():
        given = tuple(named[name].shape)
        if given != shape:
            raise ValueError(f'ss2d_scan: {name} must be {shape} for {channels} channels, not {given}.')
