"""The supplied operators against what full mmcv returned; ``record_expected.py`` tells how that was recorded."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mmmamba.compat.nms import nms, softnms
from mmmamba.compat.roi_align import roi_align_backward, roi_align_forward

pytestmark = pytest.mark.usefixtures('both_ways')
DATA = Path(__file__).parent.parent / 'data'


def recorded(name: str) -> list[dict]:
    arrays = np.load(DATA / f'compat_{name}.npz')
    cases: list[dict] = [{} for _ in {key.split('.')[0] for key in arrays}]
    for key in arrays:
        i, field = key.split('.')
        value = arrays[key]
        cases[int(i)][field] = torch.from_numpy(value) if value.ndim else value.item()
    return cases


def assert_close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('case', recorded('nms'))
def test_nms(case: dict):
    keep = nms(case['boxes'], case['scores'], iou_threshold=case['iou_threshold'], offset=case['offset'])
    assert 1 < len(keep) < len(case['boxes']) or case['iou_threshold'] == 1
    assert torch.equal(keep, case['keep'])


@pytest.mark.parametrize('case', recorded('softnms'))
def test_softnms(case: dict):
    arguments = {key: case[key] for key in ('iou_threshold', 'sigma', 'min_score', 'method', 'offset')}
    dets = torch.full((len(case['boxes']), 5), float('nan'))
    keep = softnms(case['boxes'], case['scores'], dets, **arguments)
    assert torch.equal(keep, case['keep'])
    assert_close(dets[:len(keep)], case['dets'])


@pytest.mark.parametrize('case', recorded('roi_align'))
def test_roi_align(case: dict):
    expected = case['output']
    output = torch.full_like(expected, float('nan'))
    argmax = [torch.full_like(expected, float('nan')) if case['pool_mode'] == 'max' else torch.empty(0)
              for _ in range(2)]
    arguments = dict(aligned_height=3, aligned_width=2, spatial_scale=case['spatial_scale'],
                     sampling_ratio=case['sampling_ratio'], pool_mode=('max', 'avg').index(case['pool_mode']),
                     aligned=case['aligned'])
    roi_align_forward(case['input'], case['rois'], output, *argmax, **arguments)
    assert_close(output, expected)
    grad_input = torch.zeros_like(case['input'])
    roi_align_backward(case['grad_output'], case['rois'], *argmax, grad_input, **arguments)
    assert_close(grad_input, case['grad_input'])
