"""The two-dimensional scan in the native kernel."""
from __future__ import annotations

from functools import partial

from mmmamba.ops.cpu import native
from mmmamba.ops.cpu.operator import native_scan
from mmmamba.ops.dispatch import TOLERANCES, Backend
from mmmamba.ops.ss2d_scan.fused import fused

BACKEND = Backend(
    name='cpu',
    run=partial(fused, native_scan),
    tolerances=TOLERANCES,
    devices=('cpu',),
    unavailable=native.unavailable,
)
