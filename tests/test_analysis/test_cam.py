"""Class activation maps of activations whose maps are known, and how maps are laid over a picture."""
from __future__ import annotations

import pytest
import torch
from mmdet.structures import DetDataSample

from mmmamba.analysis.cam import Activation, blended, eigen_cam, grad_cam, hires_cam

BLOB = torch.zeros(6, 8)
BLOB[1:3, 4:6] = 1


@pytest.mark.parametrize('sign', [1, -1])
def test_eigen_cam_finds_the_pattern_that_most_channels_share(sign):
    torch.manual_seed(0)
    channels = sign * torch.rand(16)
    value = channels[:, None, None] * BLOB + 5 + 0.01 * torch.randn(16, 6, 8)  # whatever all cells have in common
    heat = eigen_cam(Activation(value))
    assert heat.shape == BLOB.shape and (heat >= 0).all()
    assert heat[BLOB > 0].min() > 5 * heat[BLOB == 0].max()


def test_grad_cam_by_hand():
    value = torch.stack([BLOB, torch.ones(6, 8), 2 * BLOB])
    gradient = torch.stack([torch.full((6, 8), 0.5), torch.zeros(6, 8), torch.full((6, 8), -0.1)])
    assert torch.allclose(grad_cam(Activation(value, gradient)), (0.5 - 0.2) * BLOB)
    assert not grad_cam(Activation(value, -gradient)).any()


def test_hires_cam_leaves_out_what_the_scores_do_not_depend_on():
    value = torch.stack([torch.ones(6, 8), torch.ones(6, 8)])
    gradient = torch.stack([BLOB, -0.25 * BLOB])
    assert torch.allclose(hires_cam(Activation(value, gradient)), 0.75 * BLOB)


def sample(ori_shape: tuple[int, int], scale: tuple[float, float], batch: tuple[int, int]) -> DetDataSample:
    return DetDataSample(metainfo=dict(ori_shape=ori_shape, scale_factor=scale, batch_input_shape=batch))


def test_maps_are_laid_over_the_picture_without_its_padding():
    heat = torch.zeros(8, 8)
    heat[0:2, 6:8] = 1
    heat[6:] = 9  # in the padding below
    shown = blended([heat], sample((50, 100), (0.64, 0.64), (64, 64)))  # (32, 64) of the batch is picture
    assert shown.shape == (50, 100) and shown.min() == 0 and shown.max() == 1
    assert shown[10, 90] == 1 and shown[10, 10] == 0 and shown[45, 50] == 0


def test_maps_of_several_resolutions_count_alike():
    small, large = torch.zeros(2, 2), torch.zeros(8, 8)
    small[0, 0], large[6:, 6:] = 100, 1
    shown = blended([small, large], sample((64, 64), (1, 1), (64, 64)))
    assert shown[3, 3] == pytest.approx(1) == shown[60, 60]


def test_a_map_of_zeros_stays_zero():
    assert not blended([torch.zeros(2, 2)], sample((9, 9), (1, 1), (9, 9))).any()
