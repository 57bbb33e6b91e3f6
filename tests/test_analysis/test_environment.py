"""Where a detector was measured, as its row tells."""
from __future__ import annotations

import sys

import mmcv
import mmdet

from mmmamba.analysis.detector import DETECTOR_ENVIRONMENT, detector_environment
from mmmamba.analysis.measure import environment
from mmmamba.compat.mmcv_ext import MMCVExtension


def test_versions_and_which_mmcv_it_is():
    where = detector_environment('cpu', 3)
    assert tuple(where) == DETECTOR_ENVIRONMENT
    assert where.items() >= environment('cpu', 3).items()
    kind = 'lite' if isinstance(sys.modules['mmcv._ext'], MMCVExtension) else 'full'
    assert (where['mmdet'], where['mmcv']) == (mmdet.__version__, f'{mmcv.__version__} {kind}')
