"""A backend without a backward pass."""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor

from mmmamba.ops.dispatch import WITHOUT_AUTOCAST, Backend


def refuse_gradient(ctx: Any, grad: Tensor) -> NoReturn:
    """The backward pass of an operator without one: reached through a program that was traced without gradients.

    Raises:
        RuntimeError: Always.
    """
    raise RuntimeError(
        'This native operator is for inference only: export or trace the model with gradients enabled, '
        "or use backend='torch'."
    )


@dataclass(frozen=True)
class InferenceBackend(Backend):
    """A :class:`Backend` that runs only where no gradient is asked for, and where autocast would change nothing."""

    def unsupported_reasons(self, inputs: Iterable[Tensor]) -> list[str]:
        inputs = list(inputs)
        reasons = super().unsupported_reasons(inputs)
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs):
            reasons.append('It has no gradient, and an input needs one.')
        devices = {tensor.device.type for tensor in inputs}
        if any(device not in WITHOUT_AUTOCAST and torch.is_autocast_enabled(device) for device in devices):
            reasons.append('It does not follow autocast.')
        return reasons
