"""A very small Mamba YOLO, for tests of what takes any detector."""
from __future__ import annotations

import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

CONFIG = """
custom_imports = dict(imports=['mmmamba'])
model = dict(
    type='SingleStageDetector',
    backbone=dict(type='ODMamba', arch=None, depths=(1, 1, 1, 1), widths=(8, 16, 16, 32)),
    neck=dict(type='ODSSPAFPN', in_channels=(16, 16, 32)),
    bbox_head=dict(type='YOLOv8Head', num_classes=3, in_channels=(16, 16, 32)))
"""
TWO_LEVELS = dict(
    backbone=dict(type='ODMamba', arch=None, depths=(1, 1, 1, 1), widths=(8, 16, 16, 32), out_indices=(1, 2)),
    neck=dict(type='ODSSPAFPN', in_channels=(16, 16), ssm=False),
    bbox_head=dict(type='YOLOv8Head', num_classes=3, in_channels=(16, 16), strides=(8, 16)))


def build(variances: tuple[float, float] = (0.5, 2), bias: float = -2, std: float = 0.5, **model):
    """Makes the detector as if it were trained.

    Args:
        variances: Least and largest of the batch norms, so that folding them changes the weights.
        bias, std: Of the scores' last layer, so that scores are all over the range.
        model: Other parts than the config's.
    """
    init_default_scope('mmdet')
    torch.manual_seed(0)
    preprocessor = dict(type='DetDataPreprocessor', mean=[0] * 3, std=[255] * 3, bgr_to_rgb=True)
    detector = MODELS.build(dict(Config.fromstring(CONFIG, '.py').model, data_preprocessor=preprocessor, **model))
    for layer in detector.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(*variances)
    torch.manual_seed(1)
    for branch in detector.bbox_head.cls_branches:
        nn.init.constant_(branch[-1].bias, bias)
        nn.init.normal_(branch[-1].weight, std=std)
    for branch in detector.bbox_head.reg_branches:  # boxes of different sizes
        branch[-1].bias.data.copy_(-0.5 * torch.arange(16.0).repeat(4))
    return detector


def build_with_one_scan(**model):
    """Makes one with a scan in the first stage alone, and two levels, which is traced or compiled sooner."""
    detector = build(**{**TWO_LEVELS, **model})
    for stage in range(1, len(detector.backbone.stages)):
        detector.backbone.stages[stage] = nn.Identity()
    return detector


ALONE = """
import runpy, sys

class Blind:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('mmcv', 'mmdet', 'mmengine', 'mmmamba', *sys.argv[3:]):
            return None
        return self.finder.find_spec(name, path, target)

sys.meta_path[:] = map(Blind, sys.meta_path)
import numpy as np
runtime = runpy.run_path(sys.argv[1])
try:
    found = runtime['Detector'](sys.argv[2], score=0.1)(np.full((50, 90, 3), 90, np.uint8))
except runtime['RuntimeFileError'] as error:
    sys.exit(str(error))
assert found.boxes.shape == (len(found.scores), 4) and len(found.labels), found
assert (found.boxes >= 0).all() and (found.boxes <= [90, 50, 90, 50]).all()
print('found', len(found.labels))
"""
"""A program that runs runtime.py (its path) on a file, where only NumPy, OpenCV and what runs the file can be
imported, without the packages that are named after it."""
