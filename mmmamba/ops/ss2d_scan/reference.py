"""The two-dimensional scan on the one-step-at-a-time recurrence: what every other backend is compared with."""
from __future__ import annotations

from functools import partial

from mmmamba.ops.dispatch import Backend
from mmmamba.ops.selective_scan import reference
from mmmamba.ops.ss2d_scan.unfused import unfused

BACKEND = Backend(
    name='reference',
    run=partial(unfused, reference.scan),
    tolerances=reference.BACKEND.tolerances,
    transformable=True,
)
