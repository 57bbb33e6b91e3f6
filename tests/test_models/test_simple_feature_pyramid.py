"""SimpleFeaturePyramid: shapes at odd sizes, its formula, its arguments."""
from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS

from mmmamba.errors import InputError


def build(**settings):
    torch.manual_seed(0)
    return MODELS.build(dict(type='SimpleFeaturePyramid', **{'in_channels': 8, 'out_channels': 6, **settings}))


def normalise(x):
    return F.layer_norm(x.permute(0, 2, 3, 1), x.shape[1:2], eps=1e-6).permute(0, 3, 1, 2)


@pytest.mark.parametrize('size', [(4, 6), (5, 3), (1, 2), (1, 1)])
def test_sizes_and_gradients(size):
    feat, neck = torch.randn(2, 8, *size, requires_grad=True), build()
    outs = neck((feat, ))
    half, quarter = ([-(-side // factor) for side in size] for factor in (2, 4))
    expected = [[side * 4 for side in size], [side * 2 for side in size], [*size], half, quarter]
    assert [[*out.shape] for out in outs] == [[2, 6, *sides] for sides in expected]
    assert torch.equal(outs[4], outs[3][..., ::2, ::2])
    sum((out * torch.randn_like(out)).sum() for out in outs).backward()
    assert feat.grad.abs().min() > 0
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in neck.parameters())
    assert all(torch.equal(*pair) for pair in zip(neck(feat), outs))  # the map itself is taken too


@torch.no_grad()
def test_is_its_formula():
    neck, x = build(), torch.randn(2, 8, 4, 6)

    def up(x, conv):
        return F.conv_transpose2d(x, conv.weight, conv.bias, stride=2)

    def project(x, level):
        first, second = list(level)[-2:]
        assert first.conv.bias is second.conv.bias is None
        return normalise(F.conv2d(normalise(F.conv2d(x, first.conv.weight)), second.conv.weight, padding=1))

    finest, fine, same, coarse = neck.levels
    inputs = (up(F.gelu(normalise(up(x, finest[0]))), finest[3]), up(x, fine[0]), x, F.max_pool2d(x, 2))
    for out, level, before in zip(neck([x]), neck.levels, inputs):
        torch.testing.assert_close(out, project(before, level))


def test_arguments():
    feat = torch.randn(1, 8, 4, 4)
    assert [len(build(num_outs=count)(feat)) for count in (4, 5, 6)] == [4, 5, 6]
    with pytest.raises(InputError, match='num_outs must be at least 4, got 3'):
        build(num_outs=3)
    with pytest.raises(InputError, match='multiple of 4, got 6'):
        build(in_channels=6)
    with pytest.raises(InputError, match=r'one map of 8 channels, got 2 of \[8, 8\]'):
        build()((feat, feat))
    with pytest.raises(InputError, match=r'one map of 8 channels, got 1 of \[4\]'):
        build()((feat[:, :4], ))
