"""Backbones, registered under their class names."""
from mmmamba.models.backbones.efficient_vmamba import EfficientVMamba
from mmmamba.models.backbones.local_mamba import LocalVim, LocalVMamba
from mmmamba.models.backbones.mamba_vision import MambaVision
from mmmamba.models.backbones.mamba_yolo import ODMamba
from mmmamba.models.backbones.vim import Vim
from mmmamba.models.backbones.vmamba import VMamba
from mmmamba.models.backbones.yolov8 import YOLOv8CSPDarknet

__all__ = ['EfficientVMamba', 'LocalVMamba', 'LocalVim', 'MambaVision', 'ODMamba', 'VMamba', 'Vim',
           'YOLOv8CSPDarknet']
