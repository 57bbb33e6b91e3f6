"""The two-dimensional scan in Triton kernels."""
from __future__ import annotations

from functools import partial

from mmmamba.ops.dispatch import TOLERANCES, Backend
from mmmamba.ops.ss2d_scan.fused import fused
from mmmamba.ops.triton.operator import DEVICES, triton_scan, unavailable

BACKEND = Backend(
    name='triton', run=partial(fused, triton_scan), tolerances=TOLERANCES, devices=DEVICES, unavailable=unavailable
)
