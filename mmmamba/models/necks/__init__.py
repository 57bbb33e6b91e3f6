"""Necks, registered under their class names."""
from mmmamba.models.necks.odss_pafpn import ODSSPAFPN
from mmmamba.models.necks.simple_feature_pyramid import SimpleFeaturePyramid
from mmmamba.models.necks.yolo_pafpn import YOLOv8PAFPN

__all__ = ['ODSSPAFPN', 'SimpleFeaturePyramid', 'YOLOv8PAFPN']
