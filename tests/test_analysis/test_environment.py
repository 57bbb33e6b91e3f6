"""Where a measurement was made, as its row tells."""
from __future__ import annotations

import platform
import sys

import mmcv
import mmdet
import pytest
import torch

from mmmamba.analysis.environment import ENVIRONMENT, cpu_name, environment
from mmmamba.compat.mmcv_ext import MMCVExtension

CPUINFO = """processor\t: 0
model\t\t: 2
model name\t: AMD  EPYC 9654
processor\t: 1
model name\t: AMD  EPYC 9654
"""


@pytest.mark.parametrize('text, name', [(CPUINFO, 'AMD EPYC 9654'), ('processor\t: 0\n', platform.machine()),
                                        (None, platform.machine())])
def test_name_of_the_cpu(monkeypatch, tmp_path, text, name):
    path = tmp_path / 'cpuinfo'
    if text is not None:
        path.write_text(text)
    monkeypatch.setattr('mmmamba.analysis.environment._CPUINFO', path)
    assert cpu_name() == name
    assert environment('cpu', 1)['device'].startswith(f'cpu {name}')


def test_versions_and_which_mmcv_it_is():
    where = environment('cpu', 3)
    assert tuple(where) == ENVIRONMENT
    assert (where['threads'], where['torch'], where['mmdet']) == ('3', torch.__version__, mmdet.__version__)
    kind = 'lite' if isinstance(sys.modules['mmcv._ext'], MMCVExtension) else 'full'
    assert where['mmcv'] == f'{mmcv.__version__} {kind}'
