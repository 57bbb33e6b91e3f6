from __future__ import annotations

import pytest
import torch
from torch import Tensor

import mmmamba  # noqa: F401  (supplies mmcv's operators)

pytestmark = pytest.mark.usefixtures('both_ways')
ROIS = [[0, 1, 2, 30, 25], [1, -8, -3, 50, 60], [0, 5, 5, 5, 5], [1, 80, 80, 90, 90], [1, 3.3, 7.1, 9.9, 41.7]]


def roi_align(*args: object) -> Tensor:
    from mmcv.ops import roi_align
    return roi_align(*args)


@pytest.mark.parametrize('sampling_ratio', [0, 2])
@pytest.mark.parametrize('aligned', [False, True])
@pytest.mark.parametrize('pool_mode', ['avg', 'max'])
def test_gradient(pool_mode: str, aligned: bool, sampling_ratio: int):
    maps = torch.randn(2, 3, 9, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rois = torch.tensor(ROIS, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: roi_align(x, rois, (3, 2), 0.25, sampling_ratio, pool_mode, aligned),
                                    maps.requires_grad_())


def test_a_plane_is_sampled_exactly():
    """Bilinear interpolation reproduces a plane, so that a bin's mean is the plane's value at the bin's centre."""
    y, x = torch.meshgrid(torch.arange(20.0), torch.arange(30.0), indexing='ij')
    plane = (2 * x - 3 * y + 1)[None, None]
    # Pixel centres at half-integer positions: a region [4, 12) covers pixels 4 to 11.
    pooled = roi_align(plane, torch.tensor([[0, 4.0, 6.0, 12.0, 10.0]]), (2, 4), 1.0, 0, 'avg', True)
    centre_y, centre_x = torch.meshgrid(torch.tensor([6.5, 8.5]), torch.tensor([4.5, 6.5, 8.5, 10.5]), indexing='ij')
    torch.testing.assert_close(pooled[0, 0], 2 * centre_x - 3 * centre_y + 1)


@pytest.mark.parametrize('pool_mode', ['avg', 'max'])
def test_no_regions(pool_mode: str):
    maps = torch.randn(2, 3, 9, 11, requires_grad=True)
    pooled = roi_align(maps, torch.empty(0, 5), 7, 0.25, 0, pool_mode, True)
    assert pooled.shape == (0, 3, 7, 7)
    pooled.sum().backward()
    assert not maps.grad.any()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_rounds_the_result_only(dtype: torch.dtype):
    maps = torch.randn(2, 3, 40, 50, generator=torch.Generator().manual_seed(0)).to(dtype)
    rois = torch.tensor(ROIS).to(dtype)
    pooled = roi_align(maps, rois, 7, 0.25, 0, 'avg', True)
    assert pooled.dtype == dtype
    assert torch.equal(pooled, roi_align(maps.float(), rois.float(), 7, 0.25, 0, 'avg', True).to(dtype))


def test_memory_layouts_agree():
    maps = torch.randn(2, 3, 9, 11)
    rois = torch.tensor(ROIS)
    assert torch.equal(roi_align(maps, rois, 3, 0.25, 0, 'avg', True),
                       roi_align(maps.contiguous(memory_format=torch.channels_last), rois, 3, 0.25, 0, 'avg', True))


def test_the_gradient_arrives_whole_and_in_the_right_image():
    maps = torch.randn(3, 2, 16, 16, requires_grad=True)
    roi_align(maps, torch.tensor([[1, 4.0, 4.0, 12.0, 12.0]]), 4, 1.0, 0, 'avg', True).sum().backward()
    torch.testing.assert_close(maps.grad.sum((1, 2, 3)), torch.tensor([0.0, 32.0, 0.0]))


def test_a_region_turned_inside_out_is_refused():
    with pytest.raises(RuntimeError, match='negative'):
        roi_align(torch.randn(1, 1, 4, 4), torch.tensor([[0, 3.0, 0.0, 1.0, 2.0]]), 2, 1.0, 0, 'avg', True)
