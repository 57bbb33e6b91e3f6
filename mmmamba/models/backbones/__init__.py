"""Backbones, registered under their class names."""
from mmmamba.models.backbones.efficient_vmamba import EfficientVMamba
from mmmamba.models.backbones.od_mamba import ODMamba
from mmmamba.models.backbones.yolov8_csp_darknet import YOLOv8CSPDarknet

__all__ = ['EfficientVMamba', 'ODMamba', 'YOLOv8CSPDarknet']
