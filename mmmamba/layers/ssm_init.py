"""Initial values of a selective scan's parameters."""
from __future__ import annotations

import math

import torch
from torch import Tensor

from mmmamba.errors import InputError

SSM_INITS = ('reference', 'mamba')


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

    * ``'reference'``: what Mamba YOLO's public code starts from. Every A is -1, and the dt projection is standard
      normal, so the step softplus(·) is of order 1 and the memory of order one pixel.
    * ``'mamba'``: Mamba's own (arXiv 2312.00752, section 3.6). A is -1 … -N; the step starts log-uniform in
      [``dt_min``, ``dt_max``], so the memory spans from ten to a thousand pixels.

    Args:
        name: ``'reference'`` or ``'mamba'``.
        A_logs: (K·D, N).
        Ds: (K·D,), the skip; ones in both.
        dt_projs_weight: (K, D, R).
        dt_projs_bias: (K, D).
        dt_min: Smallest initial step of ``'mamba'``.
        dt_max: Largest initial step of ``'mamba'``.

    Raises:
        InputError: There is no initialisation of that name.
    """
    if name not in SSM_INITS:
        raise InputError(f'ssm_init must be one of {SSM_INITS}, got {name!r}')
    with torch.no_grad():
        Ds.fill_(1)
        if name == 'reference':
            A_logs.zero_()
            dt_projs_weight.normal_()
            dt_projs_bias.normal_()
            return
        A_logs.copy_(torch.arange(1, A_logs.shape[1] + 1, dtype=A_logs.dtype).log().expand_as(A_logs))
        bound = dt_projs_weight.shape[-1]**-0.5
        dt_projs_weight.uniform_(-bound, bound)
        step = dt_projs_bias.uniform_(math.log(dt_min), math.log(dt_max)).exp_()
        step.add_(torch.log(-torch.expm1(-step)))  # the inverse of softplus
