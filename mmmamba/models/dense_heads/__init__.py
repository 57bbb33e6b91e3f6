"""Dense heads, registered under their class names."""
from mmmamba.models.dense_heads.clipped_heads import (
    ClippedDeformableDETRHead,
    ClippedDINOHead,
    ClippedRTMDetSepBNHead,
    ClippedYOLOXHead,
    LetterboxPreprocessor,
)
from mmmamba.models.dense_heads.yolov8_head import YOLOv8Head
from mmmamba.models.dense_heads.yolov8_ins_head import YOLOv8InsHead, set_encode_masks

__all__ = ['ClippedDINOHead', 'ClippedDeformableDETRHead', 'ClippedRTMDetSepBNHead', 'ClippedYOLOXHead',
           'LetterboxPreprocessor', 'YOLOv8Head', 'YOLOv8InsHead', 'set_encode_masks']
