"""The two-dimensional scan in PyTorch operations: runs on any device."""
from __future__ import annotations

from functools import partial

from mmmamba.ops.dispatch import Backend
from mmmamba.ops.selective_scan import torch_backend
from mmmamba.ops.ss2d_scan.unfused import unfused

BACKEND = Backend(
    name='torch', run=partial(unfused, torch_backend.scan), tolerances=torch_backend.BACKEND.tolerances
)
