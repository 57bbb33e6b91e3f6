"""torchvision's compiled operators, where torchvision is installed and fits this PyTorch; and what they compute in.

A torchvision that was built for another PyTorch fails when it is imported, or at the first call on a device; then the
operators in PyTorch are used. Results are the same: see ``docs/adr/0002-no-torchvision.md``.
"""
from __future__ import annotations

from functools import cache
from types import ModuleType

import torch
from torch import Tensor


@cache
def compiled_ops(device: torch.device) -> ModuleType | None:
    """Returns ``torchvision.ops`` if its operators work on a device, else None."""
    try:
        from torchvision import ops

        ops.nms(torch.zeros(1, 4, device=device), torch.zeros(1, device=device), 0.5)
    except (AttributeError, ImportError, OSError, RuntimeError):  # not installed; for another PyTorch or device
        return None
    return ops


def compute_dtype(tensor: Tensor) -> torch.dtype:
    """Returns float64 for float64, else float32: half precision holds neither corners of boxes nor sums of samples."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32
