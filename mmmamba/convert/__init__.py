"""Weights of the reference implementations for our models: pure key maps, one function a system."""
from mmmamba.convert.backbone import dropped
from mmmamba.convert.checkpoint import Checkpoint, read_checkpoint, require_fit, write_checkpoint
from mmmamba.convert.efficient_vmamba import efficient_vmamba
from mmmamba.convert.key_map import system_of
from mmmamba.convert.local_mamba import local_mamba
from mmmamba.convert.mamba_vision import mamba_vision
from mmmamba.convert.mamba_yolo import mamba_yolo
from mmmamba.convert.publish import publish
from mmmamba.convert.vim import vim
from mmmamba.convert.vmamba import vmamba
from mmmamba.convert.yolov8 import yolov8

SYSTEMS = {
    'efficient-vmamba': efficient_vmamba,
    'local-mamba': local_mamba,
    'mamba-vision': mamba_vision,
    'mamba-yolo': mamba_yolo,
    'vim': vim,
    'vmamba': vmamba,
    'yolov8': yolov8,
}

__all__ = ['SYSTEMS', 'Checkpoint', 'dropped', 'efficient_vmamba', 'local_mamba', 'mamba_vision', 'mamba_yolo',
           'publish', 'read_checkpoint', 'require_fit', 'system_of', 'vim', 'vmamba', 'write_checkpoint', 'yolov8']
