"""Sigmoid focal loss with the argument order of ``mmcv._ext``, in PyTorch on any device.

With ``p = sigmoid(x)``, the loss of "Focal Loss for Dense Object Detection" (equation 5) is
``-alpha (1 - p)^gamma log(p)`` for a sample's class and ``-(1 - alpha) p^gamma log(1 - p)`` for every other one.
Logarithms are taken with ``logsigmoid``. mmcv's kernel takes them of a rounded ``1 - p``, which loses its digits as
the logit grows and is zero above 17: there this implementation is right and mmcv is not.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmmamba.compat.torchvision_ops import compute_dtype


def sigmoid_focal_loss_forward(input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float,
                               alpha: float) -> None:
    """Writes the loss of each sample and class.

    Args:
        input: (N, C) logits.
        target: (N,) int64 classes; ``C`` is the background.
        weight: (C,) factor of each class, applied to all losses of a sample of this class, or empty.
        output: (N, C), written.
        gamma: exponent.
        alpha: weight of the positives.
    """
    is_target, x = _is_target(input, target), input.to(compute_dtype(input))
    positive = -alpha * torch.sigmoid(-x) ** gamma * F.logsigmoid(x)
    negative = -(1 - alpha) * torch.sigmoid(x) ** gamma * F.logsigmoid(-x)
    output.copy_(torch.where(is_target, positive, negative) * _sample_weight(weight, target))


def sigmoid_focal_loss_backward(input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float,
                                alpha: float) -> None:
    """Writes the derivative of each loss with respect to its logit; arguments as in the forward."""
    is_target, x = _is_target(input, target), input.to(compute_dtype(input))
    p, q = torch.sigmoid(x), torch.sigmoid(-x)
    positive = alpha * q ** gamma * (gamma * p * F.logsigmoid(x) - q)
    negative = (1 - alpha) * p ** gamma * (p - gamma * q * F.logsigmoid(-x))
    grad_input.copy_(torch.where(is_target, positive, negative) * _sample_weight(weight, target))


def _is_target(input: Tensor, target: Tensor) -> Tensor:
    return target[:, None] == torch.arange(input.shape[1], device=input.device)


def _sample_weight(weight: Tensor, target: Tensor) -> Tensor | float:
    """Returns the (N, 1) weight of each sample's class; 1 for the background, which has none."""
    if weight.numel() == 0:
        return 1.0
    return torch.cat((weight, weight.new_ones(1)))[target][:, None]
