_base_ = ['../_base_/models/mamba-yolo_b_released.py', '../_base_/yolov8_300e_voc.py']

model = dict(bbox_head=dict(num_classes=20))
