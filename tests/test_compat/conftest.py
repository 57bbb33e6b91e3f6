"""NMS and RoIAlign both ways: torchvision's, where it is installed and works, and in PyTorch."""
from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from mmmamba.compat import nms, roi_align
from mmmamba.compat.torchvision_ops import compiled_ops


@pytest.fixture(scope='module', params=['torchvision', 'pytorch'])
def both_ways(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.param == 'torchvision' and compiled_ops(torch.device('cpu')) is None:
        pytest.skip('needs a torchvision that fits this PyTorch')
    with pytest.MonkeyPatch.context() as patch:
        if request.param == 'pytorch':
            for module in (nms, roi_align):
                patch.setattr(module, 'compiled_ops', lambda device: None)
        yield
