"""Dense heads, registered under their class names."""
from mmmamba.models.dense_heads.yolov8_head import YOLOv8Head

__all__ = ['YOLOv8Head']
