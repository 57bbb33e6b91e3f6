"""The blocks that exporters see compute what the blocks of the papers do."""
from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from mmmamba.deploy.export.blocks import CHANNEL_BLOCK, ExportedLayerNorm2d, ExportedRGBlock, rearrange_blocks
from mmmamba.layers import SS2D, LayerNorm2d, RGBlock


def outputs(layer: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    model = nn.Sequential(layer).double().eval()
    arranged = copy.deepcopy(model)
    rearrange_blocks(arranged)
    assert type(arranged[0]) is not type(layer)
    with torch.no_grad():
        return arranged(x), model(x)


@pytest.mark.parametrize('make', [
    RGBlock, partial(RGBlock, mlp_ratio=3, act='silu'), partial(SS2D, d_state=4),
    partial(SS2D, d_state=1, act='silu', conv_bias=False, pattern='atrous'), LayerNorm2d])
@pytest.mark.parametrize('size', [(2, 7, 5), (1, 1, 1), (3, 2, 9)])
def test_equals_the_block(make, size) -> None:
    torch.manual_seed(0)
    batch, height, width = size
    got, expected = outputs(make(12), torch.randn(batch, 12, height, width, dtype=torch.float64))
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def test_channels_are_whole_blocks_and_maps_are_not_split() -> None:
    model = nn.Sequential(RGBlock(32), SS2D(32))
    rearrange_blocks(model)
    block, scan = model
    assert isinstance(block, ExportedRGBlock)
    assert block.dwconv.in_channels == 96 and block.dwconv.in_channels % CHANNEL_BLOCK == 0  # 85 before
    assert [scan.u_proj.out_channels, scan.z_proj.out_channels] == [64, 64]
    assert isinstance(scan.out_norm, ExportedLayerNorm2d)


def test_other_classes_scans_without_a_gate_and_blocks_with_hooks_stay() -> None:
    class Own(RGBlock):
        pass

    model = nn.Sequential(Own(8), SS2D(8, gated=False), RGBlock(8))
    model[2].fc2.register_forward_hook(lambda *_: None)
    rearrange_blocks(model)
    assert type(model[0]) is Own and isinstance(model[1].in_proj, nn.Conv2d) and type(model[2]) is RGBlock
