"""FLOPs against numbers worked out by hand, and against published tables."""
from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import DefaultScope
from torch import nn

import mmmamba  # noqa: F401  (registers the models)
from mmmamba.analysis import Cost, count_detector, count_flops
from mmmamba.layers import SS2D, LocalSS2D, LocalVimMixer
from mmmamba.ops import selective_scan, ss2d_scan
from mmmamba.ops.scan.fused import scan_flops

GIGA = 1e9


def test_convolution_and_linear_layer():
    convolutions = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Conv2d(8, 8, 3, groups=8, padding=1)
    model = nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(8 * 4 * 5, 7, bias=False))
    cost = count_flops(model, torch.zeros(2, 3, 8, 10))
    pixels = 2 * 4 * 5
    assert cost.own['0'] == Cost(3 * 8 * 9 + 8, 2 * pixels * 8 * 27)
    assert cost.own['1'] == Cost(8 * 9 + 8, 2 * pixels * 8 * 9)
    assert cost.own['3'] == Cost(7 * 160, 2 * 2 * 7 * 160)
    assert cost.total == sum(cost.own.values(), Cost())


def test_functional_products_belong_to_the_module_that_runs():
    class Attention(nn.Module):

        def __init__(self):
            super().__init__()
            self.out = nn.Linear(4, 4)

        def forward(self, x):
            return self.out(x @ x.transpose(1, 2) @ x)

    cost = count_flops(nn.Sequential(Attention()), torch.zeros(1, 5, 4))
    assert cost.own['0'].linear_flops == 2 * (2 * 5 * 5 * 4)
    assert cost.own['0.out'].linear_flops == 2 * 5 * 4 * 4
    assert cost.parts(1) == {'0': Cost(20, 2 * (2 * 5 * 5 * 4) + 2 * 5 * 4 * 4)}
    assert list(cost.parts(2)) == ['0', '0.out']


def _attention_flops(batch: int, queries: int, keys: int, channels: int) -> int:
    return 2 * (2 * batch * queries * keys * channels)


def test_fused_attention_is_two_products():
    class Attention(nn.Module):

        def forward(self, q, k, mask=None):
            return nn.functional.scaled_dot_product_attention(q, k, k, mask)

    q, k = torch.randn(2, 3, 5, 4), torch.randn(2, 3, 7, 4)
    for mask in ((), (torch.zeros(5, 7),)):
        assert count_flops(Attention(), q, k, *mask).total.linear_flops == _attention_flops(2, 5, 7, 3 * 4)


@pytest.mark.parametrize('batch_first', [False, True])
@pytest.mark.parametrize('need_weights', [False, True])
def test_multi_head_attention(batch_first, need_weights):
    attention = nn.MultiheadAttention(8, 2, batch_first=batch_first)
    x = torch.randn(3, 5, 8) if batch_first else torch.randn(5, 3, 8)
    cost = count_flops(attention, x, x, x, need_weights=need_weights).total.linear_flops
    assert cost == _attention_flops(3, 5, 5, 8) + 4 * (2 * 3 * 5 * 8 * 8)
    assert torch.backends.mha.get_fastpath_enabled()


def test_transformer_layer_as_in_training():
    layer = nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, batch_first=True)
    linear = 2 * 3 * 5 * 8 * (4 * 8 + 2 * 16)
    assert count_flops(layer, torch.randn(3, 5, 8)).total.linear_flops == _attention_flops(3, 5, 5, 8) + linear


def test_a_part_of_a_parameter_as_input():
    class Queries(nn.Module):

        def __init__(self):
            super().__init__()
            self.queries, self.frozen = nn.Parameter(torch.zeros(5, 8)), nn.Parameter(torch.zeros(1), False)
            self.out = nn.Linear(4, 3)

        def forward(self):
            return self.out(self.queries.split(4, dim=1)[0])

    model = Queries()
    assert count_flops(model).total.linear_flops == 2 * 5 * 4 * 3
    assert model.queries.requires_grad and model.out.weight.requires_grad and not model.frozen.requires_grad


@pytest.mark.parametrize('backend', [None, 'reference', 'torch'])
def test_ss2d(backend):
    batch, height, width, channels = 2, 3, 5, 32
    inner, rank, states, pixels = 64, 2, 16, 2 * 3 * 5
    cost = count_flops(SS2D(channels, scan_backend=backend), torch.randn(batch, channels, height, width))
    projections = 2 * pixels * 4 * inner * (rank + 2 * states) + 2 * pixels * 4 * inner * rank
    convolutions = 2 * pixels * (2 * inner * channels + 9 * inner + inner * channels)
    assert cost.total.projection_flops == projections
    assert cost.total.linear_flops == convolutions + projections
    assert cost.total.convention_flops == convolutions
    assert cost.total.scan_flops == 9 * pixels * 4 * inner * states + 2 * pixels * 4 * inner


DIRECTIONS, TOKENS = ('h', 'w2', 'w7_flip', 'v'), (15, 4 * 6, 7 * 7, 15)  # of a map of 3 x 5, with whole windows


def test_local_ss2d():
    batch, channels, inner, rank, states, pixels = 2, 32, 64, 2, 16, 2 * 15
    cost = count_flops(LocalSS2D(channels, DIRECTIONS), torch.randn(batch, channels, 3, 5)).total
    assert cost.projection_flops == 4 * 2 * pixels * inner * (rank + 2 * states + rank)  # of padding they are zero
    convolutions = 2 * pixels * (2 * inner * channels + 9 * inner + inner * channels)
    assert cost.convention_flops == convolutions + 4 * 2 * batch * 2 * inner * inner // 8
    assert cost.scan_flops == sum(batch * tokens * inner * (9 * states + 2) for tokens in TOKENS)


def test_local_vim_mixer():
    batch, channels, inner, rank, states, pixels = 2, 32, 64, 2, 16, 2 * 15
    cost = count_flops(LocalVimMixer(channels, DIRECTIONS), torch.randn(batch, 3, 5, channels)).total
    branches = sum(2 * batch * (4 * (tokens + 3) * inner + tokens * inner * (rank + 2 * states + rank))
                   for tokens in TOKENS)  # the convolution also computes 3 tokens that are cut off
    assert cost.linear_flops == branches + 2 * pixels * 3 * inner * channels + 4 * 2 * batch * 2 * inner * inner // 8
    assert cost.projection_flops == 0
    assert cost.scan_flops == sum(batch * tokens * inner * (9 * states + 2) for tokens in TOKENS)


def test_scans_called_as_functions():
    class Scans(nn.Module):

        def forward(self, u, B, x, weights):
            y = selective_scan(u, u, -torch.ones(6, 3), B, B, backend='torch')
            y, last = selective_scan(u, u, -torch.ones(6, 3), B, B, return_last_state=True)
            assert y.shape == u.shape and last.shape == (2, 6, 3)
            return ss2d_scan(x, *weights, pattern='atrous')

    x = torch.zeros(1, 8, 5, 7)
    weights = [torch.zeros(shape) for shape in ((4, 2 + 2 * 3, 8), (4, 8, 2), (4, 8), (32, 3), (32,))]
    cost = count_flops(Scans(), torch.zeros(2, 6, 11), torch.zeros(2, 1, 3, 11), x, weights).total
    assert cost.scan_flops == 2 * scan_flops(2, 11, 6, 3) + scan_flops(1, 3 * 4, 4 * 8, 3)
    assert cost.projection_flops == cost.linear_flops == 2 * 12 * 4 * 8 * (2 + 6 + 2)


def test_the_model_and_the_scans_are_left_as_they_were():
    model = nn.Sequential(SS2D(16), nn.BatchNorm2d(16)).train()
    model[1].eval()
    x = torch.randn(1, 16, 4, 4)
    expected, state = model(x), {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(RuntimeError, match='channels'):
        count_flops(model, torch.zeros(1, 3, 4, 4))
    count_flops(model, x)
    assert model.training and model[0].training and not model[1].training
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert torch.equal(model(x), expected) and model(x).requires_grad


def _detector(backbone: dict, neck: dict, channels: tuple[int, ...]) -> nn.Module:
    return MODELS.build(dict(
        type='SingleStageDetector',
        backbone=backbone,
        neck=dict(in_channels=channels, **neck),
        bbox_head=dict(type='YOLOv8Head', num_classes=80, in_channels=channels)))


MAMBA_YOLO = {  # The size of the published table that has as many parameters, and its GFLOPs
    'paper-t': (dict(arch='t'), dict(), (64, 128, 256), 13.2),
    'paper-b': (dict(arch='b'), dict(), (128, 256, 512), 45.4),
    'released-l': (dict(arch='l', depths=(2, 2, 6, 2), local_spatial=True), dict(num_ss2d=2, local_spatial=True),
                   (192, 384, 576), 156.2),
}


@pytest.mark.parametrize('name', MAMBA_YOLO)
def test_mamba_yolo_is_near_the_published_figure(name):
    backbone, neck, channels, published = MAMBA_YOLO[name]
    detector = _detector(dict(type='ODMamba', **backbone), dict(type='ODSSPAFPN', **neck), channels)
    # A quarter of the side, a sixteenth of the pixels: all columns grow with the pixels exactly.
    cost = count_detector(detector, 160, 160)
    assert list(cost.parts()) == ['backbone', 'neck', 'bbox_head']
    assert cost.total.convention_flops * 16 / GIGA == pytest.approx(published, rel=0.02)
    assert cost.total.scan_flops > 0 and cost.part('bbox_head').scan_flops == 0
    assert cost.total.parameters == sum(p.numel() for p in detector.parameters())


@pytest.mark.parametrize('arch, channels, num_blocks, published', [('n', (64, 128, 256), 1, 8.7),
                                                                  ('s', (128, 256, 512), 1, 28.6),
                                                                  ('m', (192, 384, 576), 2, 78.9)])
def test_yolov8_is_near_the_published_figure(arch, channels, num_blocks, published):
    neck = dict(type='YOLOv8PAFPN', num_blocks=num_blocks)
    detector = _detector(dict(type='YOLOv8CSPDarknet', arch=arch), neck, channels)
    cost = count_detector(detector, 160, 160).total
    assert cost.linear_flops * 16 / GIGA == pytest.approx(published, rel=0.02)
    assert cost.projection_flops == cost.scan_flops == 0


def _published(config: str) -> nn.Module:
    with DefaultScope.overwrite_default_scope('mmdet'):
        return MODELS.build(get_config(f'mmdet::{config}').model)


def test_retinanet_is_near_the_published_figure():
    cost = count_detector(_published('retinanet/retinanet_r50_fpn_1x_coco.py'), 200, 320).total
    # mmdet's table has multiply-adds, at 800x1280.
    assert cost.linear_flops * 16 / GIGA == pytest.approx(2 * 239.32, rel=0.03)


def test_vmamba_is_near_the_published_figure():
    config = Path(__file__).parents[3] / 'configs/vmamba/mask-rcnn_vmamba-t_fpn_1x_coco.py'
    with DefaultScope.overwrite_default_scope('mmdet'):
        detector = MODELS.build(Config.fromfile(config).model)
    cost = count_detector(detector, 800, 1280).total
    # Its table has multiply-adds of convolutions and linear layers, and of the scans the operations.
    assert (cost.linear_flops / 2 + cost.scan_flops) / GIGA == pytest.approx(271, rel=0.003)


def test_local_vmamba_is_near_the_published_figure():
    config = Path(__file__).parents[3] / 'configs/local_mamba/mask-rcnn_local-vmamba-t_fpn_amp-1x_coco.py'
    with DefaultScope.overwrite_default_scope('mmdet'), torch.device('meta'):
        detector = MODELS.build(Config.fromfile(config).model)
    cost = count_detector(detector, 800, 1280).total
    assert (cost.linear_flops / 2 + cost.scan_flops) / GIGA == pytest.approx(291, rel=0.03)


def test_two_stage_detector_and_its_parts():
    cost = count_detector(_published('faster_rcnn/faster-rcnn_r18_fpn_8xb8-amp-lsj-200e_coco.py'), 96, 128)
    assert list(cost.parts()) == ['backbone', 'neck', 'rpn_head', 'roi_head']
    assert all(part.parameters and part.linear_flops for part in cost.parts().values())
    assert {'roi_head.bbox_head', 'backbone.layer1'} <= cost.parts(2).keys()
    assert sum(cost.parts().values(), cost.own['']) == cost.total
