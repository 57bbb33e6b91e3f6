from __future__ import annotations

import pytest
import torch
from torch import Tensor

import mmmamba  # noqa: F401  (supplies mmcv's operators)

SHAPES = [(4, 6), (2, 3), (1, 1)]


def inputs(dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Two samples, five queries, two heads of three channels, two points a level; some points lie outside the maps."""
    generator = torch.Generator().manual_seed(0)
    shapes = torch.tensor(SHAPES)
    sizes = shapes.prod(1)
    value = torch.randn(2, int(sizes.sum()), 2, 3, dtype=dtype, generator=generator)
    locations = torch.rand(2, 5, 2, 3, 2, 2, dtype=dtype, generator=generator) * 1.6 - 0.3
    weights = torch.rand(2, 5, 2, 3, 2, dtype=dtype, generator=generator)
    return value, shapes, sizes.cumsum(0) - sizes, locations, weights


def attend(value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction
    return MultiScaleDeformableAttnFunction.apply(value, shapes, starts, locations, weights, 64)


def oracle(value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    """One point after the other; pixels outside a map are zero."""
    batch, queries, heads, levels, points, _ = locations.shape
    out = value.new_zeros(batch, queries, heads, value.shape[-1])
    for b, q, m, level, p in torch.cartesian_prod(*(torch.arange(n) for n in locations.shape[:-1])).tolist():
        height, width = shapes[level].tolist()
        x, y = (locations[b, q, m, level, p] * torch.tensor([width, height]) - 0.5).tolist()
        for row in range(height):
            for column in range(width):
                tap = max(0.0, 1 - abs(y - row)) * max(0.0, 1 - abs(x - column))
                pixel = value[b, int(starts[level]) + row * width + column, m]
                out[b, q, m] += weights[b, q, m, level, p] * tap * pixel
    return out.flatten(2)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_equals_the_oracle(dtype: torch.dtype):
    arguments = inputs(dtype)
    torch.testing.assert_close(attend(*arguments), oracle(*arguments))


def test_gradient():
    value, shapes, starts, locations, weights = inputs(torch.float64)
    variables = [t.requires_grad_() for t in (value, locations, weights)]
    assert torch.autograd.gradcheck(lambda v, loc, w: attend(v, shapes, starts, loc, w), variables)
