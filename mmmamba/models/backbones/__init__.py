"""Backbones, registered under their class names."""
from mmmamba.models.backbones.efficient_vmamba import EfficientVMamba
from mmmamba.models.backbones.mamba_vision import MambaVision
from mmmamba.models.backbones.od_mamba import ODMamba
from mmmamba.models.backbones.vmamba import VMamba
from mmmamba.models.backbones.yolov8_csp_darknet import YOLOv8CSPDarknet

__all__ = ['EfficientVMamba', 'MambaVision', 'ODMamba', 'VMamba', 'YOLOv8CSPDarknet']
