"""Detectors of the R-CNN family: heads on as many boxes as published tables count."""
from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.hub import get_config
from torch import nn

from mmmamba.analysis import ModelCost, count_detector, count_flops, measure_latency
from mmmamba.layers import Attention, MambaVisionMixer
from mmmamba.ops.scan.fused import scan_flops

pytestmark = pytest.mark.usefixtures('mmdet_scope')
CONFIGS = Path(__file__).parents[2] / 'configs'
GIGA = 1e9


def on_meta(config: dict) -> nn.Module:
    with torch.device('meta'):
        return MODELS.build(config)


def mamba_vision(size: str, **backbone) -> nn.Module:
    name = f'cascade-mask-rcnn_mamba-vision-{size}_fpn_4conv1fc-giou_amp-ms-crop-3x_coco.py'
    config = Config.fromfile(CONFIGS / 'mamba_vision' / name).model
    config.backbone.update(backbone)
    return on_meta(config)


@pytest.mark.parametrize('name, published', [
    ('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', 207.0),
    ('mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', 260.0),
])
def test_multiply_adds_of_resnet_detectors(name, published):
    cost = count_detector(on_meta(get_config(f'mmdet::{name}').model), 800, 1280).total
    assert cost.linear_flops / 2 / GIGA == pytest.approx(published, rel=0.01)


def test_heads_see_a_thousand_proposals_and_a_hundred_detections():
    detector = mamba_vision('t')
    cost = count_detector(detector, 64, 96)
    assert list(cost.parts()) == ['backbone', 'neck', 'rpn_head', 'roi_head']
    heads = detector.roi_head.bbox_head, detector.roi_head.mask_head
    for kind, members, shape in zip(('bbox', 'mask'), heads, ((1000, 256, 7, 7), (100, 256, 14, 14))):
        for index, head in enumerate(members):
            alone = count_flops(head, torch.zeros(shape, device='meta')).total
            assert cost.part(f'roi_head.{kind}_head.{index}') == alone and alone.linear_flops > 0
    assert cost.total.parameters == 89_202_034


@pytest.mark.parametrize('size, published, tolerance', [('t', 740, 0.002), ('s', 828, 0.031), ('b', 964, 0.01)])
def test_published_multiply_adds_of_mamba_vision_are_those_without_padding_and_attention(size, published, tolerance):
    # Windows of 10 and 5 tile the maps of 50 x 80 and 25 x 40 pixels, and their attention costs next to nothing.
    cost = count_detector(mamba_vision(size, window_sizes=(10, 5)), 800, 1280)
    assert cost.total.linear_flops / 2 / GIGA == pytest.approx(published, rel=tolerance)


def test_latency_is_of_what_is_counted():
    """On the meta device, which has no suppression of boxes."""
    detector = on_meta(get_config('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py').model).eval()
    boxes = {}
    for name in ('bbox_head', 'mask_head'):
        detector.roi_head.get_submodule(name).register_forward_hook(
            lambda _module, inputs, _output, name=name: boxes.setdefault(name, len(inputs[0])))
    latency = measure_latency(detector, 64, 64, runs=3)
    assert 0 < latency.p20 <= latency.median <= latency.p80
    assert boxes == dict(bbox_head=1000, mask_head=100)


def attention_flops(model: nn.Module, cost: ModelCost) -> int:
    return sum(cost.own[name].linear_flops for name, module in model.named_modules() if isinstance(module, Attention))


def test_padding_and_attention_of_the_windows_of_detectors():
    detector = mamba_vision('t')
    cost = count_detector(detector, 800, 1280)
    tokens = {320: 112**2, 640: 56**2}
    mixers = [module for module in detector.modules() if isinstance(module, MambaVisionMixer)]
    assert len(mixers) == 4 + 2
    assert cost.total.scan_flops == sum(
        scan_flops(1, tokens[2 * mixer.D.numel()], mixer.D.numel(), 8) for mixer in mixers)
    assert attention_flops(detector, cost) == sum(
        blocks * 4 * tokens[width]**2 * width for blocks, width in ((4, 320), (2, 640)))
    assert cost.part('backbone').linear_flops / 2 / GIGA == pytest.approx(634.97, abs=0.01)
