"""torchvision's operators are taken where they work, and for what they can do as mmcv does."""
from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from mmmamba.compat import nms, roi_align
from mmmamba.compat.torchvision_ops import compiled_ops

CPU = torch.device('cpu')


@pytest.fixture(autouse=True)
def asked_anew():
    """Forgets what was found, before and after."""
    compiled_ops.cache_clear()
    yield
    compiled_ops.cache_clear()


class Finder:
    """Has ``import torchvision`` raise an error."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition('.')[0] == 'torchvision':
            raise self.error


@pytest.mark.parametrize('error', [
    ModuleNotFoundError("No module named 'torchvision'"),
    RuntimeError('operator torchvision::nms does not exist'),
    OSError('libcudart.so.13: cannot open shared object file'),
])
def test_one_that_cannot_be_imported_is_left_alone(monkeypatch, error):
    for name in [name for name in sys.modules if name.partition('.')[0] == 'torchvision']:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, 'meta_path', [Finder(error), *sys.meta_path])
    assert compiled_ops(CPU) is None
    boxes = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 2], [5, 5, 6, 6]])
    assert nms.nms(boxes, torch.tensor([0.1, 0.3, 0.2]), 0.5, 0).tolist() == [1, 2]


@pytest.fixture
def calls(monkeypatch):
    """A torchvision that has whatever is asked of it, and the calls that it gets."""
    found: list[tuple[str, tuple[Any, ...]]] = []
    package, ops = ModuleType('torchvision'), ModuleType('torchvision.ops')

    def fake_nms(*arguments: Any) -> torch.Tensor:
        found.append(('nms', arguments))
        return torch.zeros(1, dtype=torch.long)

    def fake_roi_align(maps: torch.Tensor, rois: torch.Tensor, size: tuple[int, int], *rest: Any) -> torch.Tensor:
        found.append(('roi_align', (maps, rois, size, *rest)))
        return maps.new_full((len(rois), maps.shape[1], *size), 7.0)

    ops.nms, ops.roi_align, package.ops = fake_nms, fake_roi_align, ops
    monkeypatch.setitem(sys.modules, 'torchvision', package)
    monkeypatch.setitem(sys.modules, 'torchvision.ops', ops)
    assert compiled_ops(CPU) is ops
    found.clear()  # without the call that tried it
    return found


@pytest.mark.parametrize('error', [RuntimeError, NotImplementedError, AttributeError])
def test_one_that_fails_when_it_is_called_is_left_alone(calls, monkeypatch, error):
    def fails(*_: object) -> None:
        raise error('no kernel on this device')

    compiled_ops.cache_clear()
    monkeypatch.setattr(sys.modules['torchvision.ops'], 'nms', fails)
    assert compiled_ops(CPU) is None


@pytest.mark.parametrize('dtype', [torch.float16, torch.float32, torch.float64])
def test_nms_computes_in_the_precision_of_ours(calls, dtype):
    boxes = torch.tensor([[0, 0, 2, 2]], dtype=dtype)
    nms.nms(boxes, torch.ones(1, dtype=dtype), 1 / 3, 0)
    (name, (corners, scores, threshold)), = calls
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    assert name == 'nms' and corners.dtype == scores.dtype == wide
    assert threshold == (1 / 3 if dtype == torch.float64 else float(np.float32(1 / 3)))


def test_what_torchvision_does_not_have_is_ours(calls):
    assert nms.nms(torch.tensor([[0.0, 0, 1, 1]]), torch.ones(1), 0.5, offset=1).tolist() == [0]
    maps, rois = torch.ones(1, 1, 4, 4), torch.tensor([[0, 0.0, 0, 4, 4]])
    outputs = [torch.zeros(1, 1, 2, 2) for _ in range(3)]
    roi_align.roi_align_forward(maps, rois, *outputs, 2, 2, 1.0, 0, pool_mode=0, aligned=True)
    assert not calls and (outputs[0] == 1).all()


@pytest.mark.parametrize('dtype', [torch.float16, torch.float32])
def test_means_of_regions_are_torchvisions(calls, dtype):
    maps, rois = torch.ones(1, 3, 4, 4, dtype=dtype), torch.tensor([[0, 0.0, 0, 4, 4]], dtype=dtype)
    output, empty = torch.zeros(1, 3, 2, 5, dtype=dtype), torch.empty(0)
    roi_align.roi_align_forward(maps, rois, output, empty, empty, 2, 5, 0.25, 2, pool_mode=1, aligned=False)
    (name, (given, regions, *rest)), = calls
    assert name == 'roi_align' and given.dtype == regions.dtype == torch.float32
    assert rest == [(2, 5), 0.25, 2, False] and (output == 7).all()
