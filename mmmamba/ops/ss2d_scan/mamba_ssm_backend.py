"""The two-dimensional scan around mamba_ssm's compiled CUDA scan, unfused: for comparison, never chosen by itself."""
from __future__ import annotations

from functools import partial

from mmmamba.ops.dispatch import TOLERANCES, Backend
from mmmamba.ops.selective_scan import mamba_ssm_backend
from mmmamba.ops.ss2d_scan.unfused import unfused

BACKEND = Backend(
    name='mamba_ssm',
    run=partial(unfused, mamba_ssm_backend.scan),
    tolerances=TOLERANCES,
    devices=('cuda',),
    unavailable=mamba_ssm_backend.unavailable,
)
