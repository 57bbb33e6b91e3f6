from __future__ import annotations

import pytest
import torch
from torch import Tensor

import mmmamba  # noqa: F401  (supplies mmcv's operators)

TARGET = torch.tensor([0, 3, 4, 1, 4, 2])  # of 4 classes; 4 is the background


def loss(logits: Tensor, gamma: float = 2.0, alpha: float = 0.25, weight: Tensor | None = None,
         reduction: str = 'none') -> Tensor:
    from mmcv.ops import sigmoid_focal_loss
    return sigmoid_focal_loss(logits, TARGET, gamma, alpha, weight, reduction)


def logits() -> Tensor:
    return 3 * torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def formula(x: Tensor, gamma: float, alpha: float) -> Tensor:
    p = x.sigmoid()
    positive = torch.nn.functional.one_hot(TARGET, 5)[:, :4].bool()
    return torch.where(positive, -alpha * (1 - p) ** gamma * p.log(), -(1 - alpha) * p ** gamma * (1 - p).log())


@pytest.mark.parametrize(('gamma', 'alpha'), [(2.0, 0.25), (0.0, 0.5), (1.5, 0.9)])
def test_value_and_gradient(gamma: float, alpha: float):
    x = logits().requires_grad_()
    torch.testing.assert_close(loss(x, gamma, alpha), formula(x, gamma, alpha))
    assert torch.autograd.gradcheck(lambda x: loss(x, gamma, alpha, reduction='sum'), x)


def test_equals_what_mmdet_computes_on_the_cpu():
    from mmdet.models.losses.focal_loss import py_sigmoid_focal_loss
    x = logits()
    one_hot = torch.nn.functional.one_hot(TARGET, 5)[:, :4].double()
    torch.testing.assert_close(loss(x, reduction='sum'), py_sigmoid_focal_loss(x, one_hot, reduction='sum'))


def test_class_weights_apply_to_all_losses_of_a_sample():
    x, weight = logits(), torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    factor = torch.tensor([1.0, 4.0, 1.0, 2.0, 1.0, 3.0], dtype=torch.float64)[:, None]
    torch.testing.assert_close(loss(x, weight=weight), formula(x, 2.0, 0.25) * factor)


@pytest.mark.parametrize('dtype', [torch.float16, torch.float32])
def test_stays_exact_at_large_logits(dtype: torch.dtype):
    x = torch.tensor([[-80.0, -20.0, 20.0, 80.0]]).repeat(6, 1).to(dtype).requires_grad_()
    value = loss(x)
    # The background: 3/4 of the logit where it is large, nothing where it is low.
    torch.testing.assert_close(value[2], torch.tensor([0.0, 0.0, 15.0, 60.0], dtype=dtype), rtol=1e-3, atol=1e-6)
    value.sum().backward()
    assert x.grad.isfinite().all()
    torch.testing.assert_close(x.grad[2], torch.tensor([0.0, 0.0, 0.75, 0.75], dtype=dtype), rtol=1e-3, atol=1e-6)
