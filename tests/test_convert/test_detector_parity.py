"""Whole detectors against the reference implementations' outputs: the weight converter and the models at once."""
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from parity_weights import image, state_dict
from torch import Tensor, nn

import mmmamba  # noqa: F401  (registers the models)
from mmmamba.convert import mamba_yolo, yolov8
from mmmamba.layers import SS2D
from mmmamba.models.dense_heads.mask_assembly import mask_logits

DATA = Path(__file__).parents[1] / 'data'
TOLERANCE = {'reference': 1e-5, None: 1e-4}
CHANNELS = [64, 128, 256]
STRIDES = (8, 16, 32)


def _detector(backbone: dict, neck: dict, head: str = 'YOLOv8Head') -> dict:
    return dict(
        type='SingleStageDetector',
        backbone=backbone,
        neck=dict(in_channels=CHANNELS, **neck),
        bbox_head=dict(type=head, num_classes=80, in_channels=CHANNELS, strides=STRIDES))


PAPER = _detector(dict(type='ODMamba', arch='t', out_indices=(0, 1, 2, 3)), dict(type='ODSSPAFPN'))
RELEASED = _detector(
    dict(type='ODMamba', arch='t', depths=(1, 1, 3, 1), local_spatial=True, out_indices=(0, 1, 2, 3)),
    dict(type='ODSSPAFPN', local_spatial=True))
YOLOV8N = _detector(dict(type='YOLOv8CSPDarknet', arch='n', out_indices=(1, 2, 3)), dict(type='YOLOv8PAFPN'))
SEGMENTORS = {
    'mamba_yolo_t_seg_paper': _detector(dict(type='ODMamba', arch='t'), dict(type='ODSSPAFPN'), 'YOLOv8InsHead'),
    'yolov8n_seg': _detector(dict(type='YOLOv8CSPDarknet', arch='n'), dict(type='YOLOv8PAFPN'), 'YOLOv8InsHead'),
}
MAMBA_YOLOS = {'mamba_yolo_t_paper': PAPER, 'mamba_yolo_t_released': RELEASED}


def _load(name: str, config: dict, backend: str | None) -> tuple[nn.Module, dict[str, Tensor]]:
    """The detector with the fixture's weights, through the converter, and the fixture's outputs."""
    shapes = json.loads((DATA / f'{name}.shapes.json').read_text())
    convert = yolov8 if name.startswith('yolov8') else mamba_yolo
    model = MODELS.build(config).eval()
    weights = convert({key: torch.from_numpy(value) for key, value in state_dict(shapes).items()})
    model.load_state_dict(weights, strict=True)
    for module in model.modules():
        if isinstance(module, SS2D):
            module.scan_backend = backend
    return model, {key: torch.from_numpy(value) for key, value in np.load(DATA / f'{name}.npz').items()}


def _assert_close(outputs: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    assert outputs.keys() == expected.keys()
    for key, reference in expected.items():
        assert outputs[key].shape == reference.shape, key
        error = (outputs[key].double() - reference.double()).norm() / reference.double().norm()
        assert error < tolerance, f'{key}: {error:.2e}'


@torch.no_grad()
@pytest.mark.parametrize('backend', TOLERANCE)
@pytest.mark.parametrize('name', MAMBA_YOLOS)
def test_each_part_equals_reference_on_the_reference_input_of_the_part(name, backend):
    model, expected = _load(name, MAMBA_YOLOS[name], backend)
    features = model.backbone.stem(torch.from_numpy(image(0, 1, 3, 64, 96)))
    outputs = {}
    for index in range(4):
        for module in model.backbone.stage_modules(index):
            features = module(features)
        outputs[f'c{index + 2}'] = features
        features = expected[f'c{index + 2}']
    outputs.update(_name('p', 3, model.neck([expected[f'c{i}'] for i in (3, 4, 5)])))
    outputs.update(_head(model, [expected[f'p{i}'] for i in (3, 4, 5)]))
    _assert_close(outputs, expected, TOLERANCE[backend])


@torch.no_grad()
@pytest.mark.parametrize('backend', TOLERANCE)
@pytest.mark.parametrize('name', MAMBA_YOLOS)
def test_mamba_yolo_equals_reference_from_image_to_boxes(name, backend):
    # Random weights amplify rounding on the way: a float64 run of this model is 6e-5 away from the float32 fixture,
    # and so is a float32 run from a float64 one. The test of the parts has the tolerance that shows a wrong epsilon.
    model, expected = _load(name, MAMBA_YOLOS[name], backend)
    _assert_close(_forward(model, first_map=2), expected, 1e-4)


@torch.no_grad()
def test_yolov8_equals_reference_from_image_to_boxes():
    model, expected = _load('yolov8n', YOLOV8N, None)
    _assert_close(_forward(model, first_map=3), expected, 1e-5)


@torch.no_grad()
@pytest.mark.parametrize('backend', TOLERANCE)
@pytest.mark.parametrize('name', SEGMENTORS)
def test_head_with_masks_equals_reference_on_the_reference_input(name, backend):
    model, expected = _load(name, SEGMENTORS[name], backend)
    levels = {key: expected[key] for key in ('p3', 'p4', 'p5')}
    _assert_close({**levels, **_head_with_masks(model, [*levels.values()], expected.pop('mask_sel'))}, expected,
                  TOLERANCE[backend])


@torch.no_grad()
@pytest.mark.parametrize('name, tolerance', [('mamba_yolo_t_seg_paper', 1e-4), ('yolov8n_seg', 1e-5)])
def test_segmentors_equal_reference_from_image_to_masks(name, tolerance):
    model, expected = _load(name, SEGMENTORS[name], None)
    levels = model.extract_feat(torch.from_numpy(image(0, 1, 3, 64, 96)))
    outputs = _head_with_masks(model, levels, expected.pop('mask_sel'))
    _assert_close({**_name('p', 3, levels), **outputs}, expected, tolerance)


def _head_with_masks(model: nn.Module, levels: list[Tensor], selected: Tensor) -> dict[str, Tensor]:
    scores, boxes, coefficients, prototypes = model.bbox_head(levels)
    coefficients = torch.cat([level.flatten(2) for level in coefficients], dim=2)
    masks = mask_logits(coefficients[0, :, selected].T, prototypes[0]).sigmoid()
    raw = [torch.cat(pair, dim=1) for pair in zip(boxes, scores)]
    decoded = torch.cat([_decode(model.bbox_head, *level) for level in zip(boxes, scores, STRIDES)], dim=2)
    return {**_name('raw', 0, raw), 'decoded': decoded, 'coef': coefficients, 'proto': prototypes, 'mask_prob': masks}


def _forward(model: nn.Module, first_map: int) -> dict[str, Tensor]:
    maps = model.backbone(torch.from_numpy(image(0, 1, 3, 64, 96)))
    levels = model.neck(maps[-3:])
    return {**_name('c', first_map, maps), **_name('p', 3, levels), **_head(model, levels)}


def _head(model: nn.Module, levels: list[Tensor]) -> dict[str, Tensor]:
    scores, boxes = model.bbox_head(levels)
    raw = [torch.cat(pair, dim=1) for pair in zip(boxes, scores)]
    decoded = torch.cat([_decode(model.bbox_head, *level) for level in zip(boxes, scores, STRIDES)], dim=2)
    return {**_name('raw', 0, raw), 'decoded': decoded}


def _name(letter: str, first: int, tensors: list[Tensor]) -> dict[str, Tensor]:
    return {f'{letter}{first + i}': tensor for i, tensor in enumerate(tensors)}


def _decode(head: nn.Module, boxes: Tensor, scores: Tensor, stride: int) -> Tensor:
    """Box (centre, size) in pixels and class probabilities of a level, (1, 84, H·W)."""
    left, top, right, bottom = head.distances(boxes.flatten(2).transpose(1, 2)).unbind(-1)
    y, x = torch.meshgrid(*(torch.arange(size) + 0.5 for size in boxes.shape[-2:]), indexing='ij')
    centre = [x.flatten() + (right - left) / 2, y.flatten() + (bottom - top) / 2]
    box = torch.stack([*centre, left + right, top + bottom], dim=1) * stride
    return torch.cat([box, scores.flatten(2).sigmoid()], dim=1)
