"""Where a measurement was made, as far as PyTorch alone can tell."""
from __future__ import annotations

import platform

import pytest
import torch

from mmmamba.environment import ENVIRONMENT, cpu_name, environment

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
    monkeypatch.setattr('mmmamba.environment._CPUINFO', path)
    assert cpu_name() == name
    assert environment('cpu', 1)['device'].startswith(f'cpu {name}')


def test_the_gpu_that_was_meant(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda device: f'GPU {torch.device(device).index}')
    assert environment('cuda:1', 2)['device'] == 'GPU 1'


def test_names_and_versions():
    where = environment('cpu', 3)
    assert tuple(where) == ENVIRONMENT
    assert (where['threads'], where['torch']) == ('3', torch.__version__)
