"""The necks: shapes, topology, options."""
from __future__ import annotations

import pytest
import torch
from mmdet.registry import MODELS

from mmmamba.errors import InputError
from mmmamba.layers import SS2D, LSBlock, ODSSBlock, RGBlock

NECKS = ('ODSSPAFPN', 'YOLOv8PAFPN')


def maps(channels, size, stride=8):
    return [
        torch.rand(2, c, *(-(-side // (stride * 2**i)) for side in size), requires_grad=True)
        for i, c in enumerate(channels)
    ]


@pytest.mark.parametrize('name', NECKS)
@pytest.mark.parametrize('channels', [(16, 24, 32), (8, 16, 24, 32), (16, 24)])
@pytest.mark.parametrize('size', [(64, 96), (75, 50)])
def test_any_levels_and_sizes(name, channels, size):
    feats = maps(channels, size)
    neck = MODELS.build(dict(type=name, in_channels=channels))
    outs = neck(feats)
    assert [out.shape for out in outs] == [feat.shape for feat in feats]
    sum(out.square().mean() for out in outs).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in neck.parameters())
    assert all(feat.grad.abs().max() > 0 for feat in feats)


@pytest.mark.parametrize('name', NECKS)
def test_out_channels(name):
    feats = maps((16, 24, 32), (64, 64))
    one = MODELS.build(dict(type=name, in_channels=(16, 24, 32), out_channels=20))
    assert [out.shape[1] for out in one(feats)[:2]] == [20, 20]
    each = MODELS.build(dict(type=name, in_channels=(16, 24, 32), out_channels=(8, 12, 16)))
    assert [out.shape[1] for out in each(feats)] == [8, 12, 16]
    with pytest.raises(InputError, match='at least two levels'):
        MODELS.build(dict(type=name, in_channels=(16, )))
    with pytest.raises(InputError, match='as many'):
        MODELS.build(dict(type=name, in_channels=(16, 24, 32), out_channels=(8, 12)))
    with pytest.raises(InputError, match=r'\(16, 24, 32\) channels, got \(16, 24\)'):
        each(feats[:2])


def test_odss_pafpn_options():
    def count(kind, **settings):
        neck = MODELS.build(dict(type='ODSSPAFPN', in_channels=(16, 24, 32), **settings))
        return sum(isinstance(module, kind) for module in neck.modules())

    assert count(SS2D) == 4
    assert count(SS2D, num_ss2d=2) == 8
    assert count(SS2D, ssm=False) == count(ODSSBlock, ssm=False) == 0
    assert count(SS2D, num_ss2d=0) == 0
    assert count(RGBlock) == count(RGBlock, num_ss2d=0) == 4
    assert count(RGBlock, mlp=None) == 0
    assert count(LSBlock) == 0
    assert count(LSBlock, local_spatial=True) == 4
    assert count(torch.nn.ReLU, gate_act='relu') == 4


def test_without_scans_and_mlps_odss_pafpn_is_the_neck_without_odss_blocks():
    def parameters(**settings):
        neck = MODELS.build(dict(type='ODSSPAFPN', in_channels=(16, 24, 32), **settings))
        return sum(parameter.numel() for parameter in neck.parameters())

    assert parameters(num_ss2d=0, mlp=None) == parameters(ssm=False) < parameters(num_ss2d=0)


def test_yolov8_pafpn_num_blocks():
    neck = MODELS.build(dict(type='YOLOv8PAFPN', in_channels=(16, 24, 32), num_blocks=3))
    assert [len(block.blocks) for block in neck.top_down_blocks] == [3, 3]
