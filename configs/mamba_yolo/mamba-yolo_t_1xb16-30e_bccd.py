_base_ = ['../_base_/models/mamba-yolo_t.py', '../_base_/yolov8_30e_bccd.py']

# Steps of the scan that start small: on a short run the reference's, of order 1, forget a pixel at once.
model = dict(backbone=dict(ssm_init='mamba'), neck=dict(ssm_init='mamba'), bbox_head=dict(num_classes=3))
