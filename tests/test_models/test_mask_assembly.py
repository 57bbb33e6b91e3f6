"""Masks from prototypes and coefficients: the reference's four ways to the pixel, crops, memory."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmmamba.analysis.measure.memory import peak_memory
from mmmamba.models.dense_heads import mask_assembly
from mmmamba.models.dense_heads.mask_assembly import (
    crop_to_boxes,
    letterbox_region,
    mask_logits,
    masks_lowres,
    masks_predict,
    masks_retina,
    masks_val_json,
    without_letterbox,
)

DATA = Path(__file__).parents[1] / 'data'


@pytest.fixture(scope='module')
def fixture():
    return {name: torch.from_numpy(array) for name, array in np.load(DATA / 'yolov8_mask_assembly.npz').items()}


def test_all_four_ways_equal_reference_to_the_pixel(fixture):
    inputs = fixture['coef'], fixture['proto'], fixture['boxes_xyxy'], tuple(fixture['image_size_hw'].tolist())
    original = tuple(fixture['original_size_hw'].tolist())
    torch.testing.assert_close(mask_logits(*inputs[:2]), fixture['logits'])
    assert torch.equal(masks_lowres(*inputs), fixture['masks_lowres'])
    assert torch.equal(masks_predict(*inputs), fixture['masks_predict'])
    val_json = masks_val_json(*inputs)
    assert torch.equal(val_json, fixture['masks_val_json'])
    assert torch.equal(without_letterbox(val_json, original), fixture['masks_val_json_original'])
    region = letterbox_region(*fixture['proto'].shape[1:], original)
    retina = masks_retina(fixture['coef'], fixture['proto'], fixture['boxes_original'], original, region)
    assert torch.equal(retina, fixture['masks_retina'])


@pytest.mark.parametrize('at_once', [1, 2**30])
@pytest.mark.parametrize('size', [(1, 1), (3, 50), (37, 23), (24, 40)])
def test_retina_is_a_resized_map_cropped(size, at_once, monkeypatch):
    monkeypatch.setattr(mask_assembly, '_MAX_BYTES', at_once)
    generator = torch.Generator().manual_seed(0)
    prototypes, coefficients = torch.randn(4, 7, 9, generator=generator), torch.randn(5, 4, generator=generator)
    boxes = torch.rand(5, 4, generator=generator).sort(dim=1).values[:, [0, 1, 2, 3]] * max(size)
    boxes[0] = torch.tensor([0., 0., size[1], size[0]])
    boxes[1] = torch.tensor([-3., -2., 0., 0.])  # outside
    resized = F.interpolate(mask_logits(coefficients, prototypes).sigmoid()[None, :, 1:6, 2:8], size, mode='bilinear')
    expected = crop_to_boxes(resized[0], boxes)
    masks = masks_retina(coefficients, prototypes, boxes, size, (1, 2, 6, 8))
    assert masks.dtype == torch.bool and not masks[1].any()
    certain = (expected - 0.5).abs() > 1e-5
    assert torch.equal(masks[certain], (expected > 0.5)[certain])


def test_the_picture_may_end_inside_a_pixel():
    """The edge of an object stays on its pixel, however the picture was scaled."""
    step = torch.where(torch.arange(20) < 10, -8.0, 8.0).expand(1, 3, 20)  # changes at pixel 40 of the input
    masks = masks_retina(torch.ones(1, 1), step, torch.tensor([[0., 0., 137., 9.]]), (9, 137), (0, 0, 2.25, 17.125))
    assert masks[0].all(dim=0).float().argmax().item() == round(40 * 137 / 68.5)


@pytest.mark.parametrize('make', [masks_lowres, masks_predict, masks_val_json])
def test_no_boxes_have_no_masks(make):
    masks = make(torch.zeros(0, 4), torch.zeros(4, 3, 5), torch.zeros(0, 4), (12, 20))
    assert masks.dtype == torch.bool and len(masks) == 0
    assert without_letterbox(masks, (7, 9)).shape == (0, 7, 9)


def test_crop_keeps_what_is_right_of_the_left_edge_and_left_of_the_right():
    boxes = torch.tensor([[1., 0.5, 3., 2.], [2.5, 1., 2.9, 1.], [-1., -1., 9., 9.]])
    cropped = crop_to_boxes(torch.ones(3, 3, 4), boxes)
    assert cropped[0].tolist() == [[0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    assert not cropped[1].any() and cropped[2].all()


def test_crop_has_no_gradient_outside_even_where_a_value_is_infinite():
    maps = torch.tensor([[[1., torch.inf]]], requires_grad=True)
    crop_to_boxes(maps, torch.tensor([[0., 0., 1., 1.]])).sum().backward()
    assert maps.grad.tolist() == [[[1., 0.]]]


def test_memory_beyond_the_result_is_bounded(monkeypatch):
    """40 masks, of the whole image each, would take 21 MB in float32, and their probabilities 1.4 MB."""
    monkeypatch.setattr(mask_assembly, '_MAX_BYTES', 2**17)
    height, width, number = 270, 480, 40
    prototypes, coefficients = torch.zeros(8, 68, 120), torch.zeros(number, 8)
    boxes = torch.tensor([[0., 0., width, height]]).repeat(number, 1)
    peak = peak_memory(lambda: masks_retina(coefficients, prototypes, boxes, (height, width), (0, 0, 67.5, 120)),
                       torch.device('cpu'))
    assert peak < number * height * width + 2**18 + 16 * height * width, peak


def test_memory_is_bounded_where_the_prototypes_are_large(monkeypatch):
    """40 masks of small boxes: what they would take is their probabilities, 41 MB."""
    monkeypatch.setattr(mask_assembly, '_MAX_BYTES', 2**22)
    prototypes, coefficients = torch.zeros(8, 512, 512), torch.zeros(40, 8)
    boxes = torch.tensor([[0., 0., 9., 9.]]).repeat(40, 1)
    peak = peak_memory(lambda: masks_retina(coefficients, prototypes, boxes, (64, 64), (0, 0, 512, 512)),
                       torch.device('cpu'))
    assert peak < 2 * 2**22 + 2**19, peak
