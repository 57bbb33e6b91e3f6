"""The scans under PyTorch's global modes: inference before training, another default dtype or device."""
from __future__ import annotations

import pytest
import torch

from mmmamba.ops import selective_scan, ss2d_scan

BACKENDS = ('reference', 'torch', 'cpu')


def arguments(height: int, width: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((1, 4, height, width), (4, 5, 4), (4, 4, 1), (4, 4), (16, 2), (16, ))
    return [torch.randn(shape, generator=generator, dtype=torch.float32) for shape in shapes]


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('pattern', ['cross', 'atrous'])
def test_a_pass_in_inference_mode_does_not_spoil_training(backend, pattern):
    size = (7, 11 + BACKENDS.index(backend))  # of its own, so that no other test has the order cached
    with torch.inference_mode():
        expected = ss2d_scan(*arguments(*size), pattern=pattern, backend=backend)
    inputs = [tensor.requires_grad_() for tensor in arguments(*size)]
    y = ss2d_scan(*inputs, pattern=pattern, backend=backend)
    torch.testing.assert_close(y.detach(), expected.clone())
    y.sum().backward()
    assert all(tensor.grad is not None and tensor.grad.isfinite().all() for tensor in inputs)


@pytest.mark.parametrize('backend', BACKENDS)
def test_default_dtype_has_no_say(backend):
    x, *weights = arguments(3, 5)
    u, A, B = x.flatten(2), -torch.rand(4, 2, dtype=torch.float32), torch.rand(1, 2, 15, dtype=torch.float32)
    expected = ss2d_scan(x, *weights, backend=backend), selective_scan(u, u.abs(), A, B, B, backend=backend)
    torch.set_default_dtype(torch.float64)
    try:
        found = ss2d_scan(x, *weights, backend=backend), selective_scan(u, u.abs(), A, B, B, backend=backend)
    finally:
        torch.set_default_dtype(torch.float32)
    for value, truth in zip(found, expected):
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, truth)
