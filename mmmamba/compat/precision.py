"""The precision in which the operators compute."""
from __future__ import annotations

import torch
from torch import Tensor


def compute_dtype(tensor: Tensor) -> torch.dtype:
    """float64 for float64, else float32: half precision holds neither corners of boxes nor sums of samples."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32
