"""The ops and layers need PyTorch and nothing of OpenMMLab."""
import subprocess
import sys

import pytest

SCRIPT = """
import sys

class Blind:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {missing!r}:
            return None
        return self.finder.find_spec(name, path, target)

sys.meta_path[:] = map(Blind, sys.meta_path)
import torch
import mmmamba.ops, mmmamba.layers, mmmamba.ops.info
y = mmmamba.ops.selective_scan(*torch.ones(2, 1, 4, 3), -torch.ones(4, 2), *torch.ones(2, 1, 2, 3))
assert y.shape == (1, 4, 3)
print(mmmamba.ops.info.describe())
"""


@pytest.mark.parametrize('missing', [('mmcv', 'mmdet', 'mmengine', 'triton', 'cv2', 'pycocotools'), ('mmcv', )])
def test_ops_and_layers_work_without_openmmlab(missing):
    result = subprocess.run([sys.executable, '-c', SCRIPT.format(missing=missing)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert 'reference  available' in result.stdout
