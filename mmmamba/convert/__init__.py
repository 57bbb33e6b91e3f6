"""Weights of the reference implementations for our models: pure key maps, one function a system."""
from mmmamba.convert.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from mmmamba.convert.mamba_yolo import mamba_yolo
from mmmamba.convert.yolov8 import yolov8

SYSTEMS = {'mamba-yolo': mamba_yolo, 'yolov8': yolov8}

__all__ = ['SYSTEMS', 'Checkpoint', 'mamba_yolo', 'read_checkpoint', 'write_checkpoint', 'yolov8']
