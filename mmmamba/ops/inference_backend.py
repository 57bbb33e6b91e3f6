"""A backend without a backward pass."""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from mmmamba.ops.dispatch import Backend


@dataclass(frozen=True)
class InferenceBackend(Backend):
    """A :class:`Backend` that runs only where no gradient is asked for, and where autocast would change nothing."""

    def unsupported_reasons(self, inputs: Iterable[Tensor]) -> list[str]:
        inputs = list(inputs)
        reasons = super().unsupported_reasons(inputs)
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs):
            reasons.append('It has no gradient, and an input needs one.')
        devices = {tensor.device.type for tensor in inputs}
        if any(torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device) for device in devices):
            reasons.append('It does not follow autocast.')
        return reasons
