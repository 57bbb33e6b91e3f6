"""Whole networks through ``torch.compile`` and ``torch.export``: the scans are ordinary operators in them."""
from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

import mmmamba  # noqa: F401  (registers the models)

from mmdet.registry import MODELS  # isort: skip  (after mmmamba, which supplies mmcv's operators)

from mmmamba.models.dense_heads.mask_assembly import masks_predict, masks_val_json  # isort: skip
from mmmamba.models.dense_heads.yolov8_head import flatten  # isort: skip


class Network(nn.Module):
    """Mamba YOLO of the smallest depths and widths: image to the raw predictions of all levels."""

    def __init__(self) -> None:
        super().__init__()
        widths = (8, 16, 16, 24)
        self.backbone = MODELS.build(dict(type='ODMamba', arch=None, depths=(1, 1, 1, 1), widths=widths))
        self.neck = MODELS.build(dict(type='ODSSPAFPN', in_channels=widths[1:]))
        self.head = MODELS.build(dict(type='YOLOv8Head', num_classes=3, in_channels=widths[1:]))

    def forward(self, image: Tensor) -> list[Tensor]:
        scores, boxes = self.head(self.neck(self.backbone(image)))
        return [*scores, *boxes]


def efficient_vmamba() -> nn.Module:
    return MODELS.build(dict(type='EfficientVMamba', arch=None, depths=(1, 1, 1, 1), widths=(8, 16, 16, 24)))


@pytest.fixture(params=[Network, efficient_vmamba])
def network(request, mmdet_scope) -> nn.Module:
    torch.manual_seed(0)
    return request.param().eval()


def masks_retina_of(network: nn.Module, image: Tensor, boxes: Tensor) -> Tensor:
    scores, _, coefficients, prototypes = network.head(network.neck(network.backbone(image)))
    best = flatten(scores)[0].amax(dim=-1).topk(network.number).indices
    return masks_val_json(flatten(coefficients)[0, best], prototypes[0], boxes, image.shape[-2:])


def images(batch: int, height: int, width: int) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(0))


def test_trains_compiled_without_a_graph_break(network):
    network.train()
    compiled = torch.compile(network, fullgraph=True, backend='aot_eager')
    gradients = []
    for run in (network, compiled):
        network.zero_grad()
        sum(output.square().mean() for output in run(images(2, 64, 96))).backward()
        gradients.append([p.grad.clone() for p in network.parameters() if p.requires_grad])
    for eager, traced in zip(*gradients):
        torch.testing.assert_close(traced, eager)


@pytest.mark.needs_torch('2.11', 'exports a scan')
def test_exports_with_any_batch_and_size(network):
    sizes = {0: Dim('batch', max=64), 2: 32 * Dim('rows', min=2, max=60), 3: 32 * Dim('columns', min=2, max=60)}
    exported = torch.export.export(network, (images(2, 64, 96),), dynamic_shapes=(sizes,))
    operators = Counter(str(node.target) for graph in exported.graph_module.modules() for node in graph.graph.nodes)
    assert any('_scan' in name for name in operators), operators
    with torch.no_grad():
        for shape in ((2, 64, 96), (1, 96, 160), (3, 64, 64)):
            for got, expected in zip(exported.module()(images(*shape)), network(images(*shape))):
                torch.testing.assert_close(got, expected)


class BestMasks(nn.Module):
    """Image to the boxes of the highest scores and their masks, of the input's size: all in one graph."""

    def __init__(self, number: int = 5) -> None:
        super().__init__()
        channels = (8, 16, 16)
        sizes = dict(arch=None, depths=(1, 1, 1, 1), widths=(8, *channels))
        self.backbone = MODELS.build(dict(type='YOLOv8CSPDarknet', **sizes))
        self.neck = MODELS.build(dict(type='YOLOv8PAFPN', in_channels=channels))
        self.head = MODELS.build(dict(type='YOLOv8InsHead', num_classes=3, in_channels=channels))
        for branch in self.head.coefficient_branches:
            nn.init.constant_(branch[-1].bias, 1.0)  # so that there are masks, without training
        self.number = number

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        scores, logits, coefficients, prototypes = self.head(self.neck(self.backbone(image)))
        best = flatten(scores)[0].amax(dim=-1).topk(self.number).indices
        points = torch.cat(self.head.prior_generator.grid_priors([x.shape[-2:] for x in scores], device='cpu'))
        boxes = self.head.bbox_coder.decode(points[best], flatten(self.head.distance_maps(logits))[0, best])
        return boxes, masks_predict(flatten(coefficients)[0, best], prototypes[0], boxes, image.shape[-2:])


@pytest.mark.needs_torch('2.11', 'exports a network')
def test_masks_export_in_the_graph(mmdet_scope):
    torch.manual_seed(0)
    network = BestMasks().eval()
    exported = torch.export.export(network, (images(1, 64, 96),)).module()
    image = images(1, 64, 96).flip(-1)
    with torch.no_grad():
        boxes, masks = exported(image)
        expected = network(image)
        loop = masks_retina_of(network, image, expected[0])
    assert torch.equal(masks, expected[1]) and masks.shape == (5, 64, 96) and masks.dtype == torch.bool
    torch.testing.assert_close(boxes, expected[0])
    assert masks.any() and (masks ^ loop).float().mean() < 0.05  # they differ at the boxes' edges


BACKBONES = {
    'LocalVMamba': dict(
        arch=None, depths=(1, 1, 1, 1), widths=(8, 16, 16, 24), directions=[['h', 'v_flip', 'w2_flip', 'w7']] * 4),
    'LocalVim': dict(arch=None, depth=2, width=16, img_size=48, directions=[['h', 'v_flip', 'w2_flip', 'w7']] * 2),
    'VMamba': dict(arch=None, depths=(1, 1, 1, 1), widths=(8, 16, 16, 24)),
    'Vim': dict(arch=None, depth=2, width=16, img_size=48),
}


@pytest.fixture(params=BACKBONES)
def backbone(request, mmdet_scope) -> nn.Module:
    torch.manual_seed(0)
    return MODELS.build(dict(type=request.param, **BACKBONES[request.param]))


def test_backbones_train_compiled(backbone):
    backbone.train()
    compiled = torch.compile(backbone, fullgraph=True, backend='aot_eager')
    gradients = []
    for run in (backbone, compiled):
        backbone.zero_grad()
        sum(output.square().mean() for output in run(images(2, 64, 96))).backward()
        gradients.append([p.grad.clone() for p in backbone.parameters()])
    for eager, traced in zip(*gradients):
        torch.testing.assert_close(traced, eager)


@pytest.mark.needs_torch('2.11', 'exports a scan')
def test_backbones_export(backbone):
    backbone.eval()
    sizes = {0: Dim('batch', max=64), 2: 32 * Dim('rows', min=2, max=60), 3: 32 * Dim('columns', min=2, max=60)}
    exported = torch.export.export(backbone, (images(2, 64, 96),), dynamic_shapes=(sizes,)).module()
    with torch.no_grad():
        for shape in ((2, 64, 96), (1, 96, 160)):
            torch.testing.assert_close(exported(images(*shape)), backbone(images(*shape)))
