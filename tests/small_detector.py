"""The config of a very small Mamba YOLO, for tests of what takes any detector's."""
CONFIG = """
custom_imports = dict(imports=['mmmamba'])
model = dict(
    type='SingleStageDetector',
    backbone=dict(type='ODMamba', arch=None, depths=(1, 1, 1, 1), widths=(8, 16, 16, 32)),
    neck=dict(type='ODSSPAFPN', in_channels=(16, 16, 32)),
    bbox_head=dict(type='YOLOv8Head', num_classes=3, in_channels=(16, 16, 32)))
"""
