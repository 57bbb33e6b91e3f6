_base_ = ['../_base_/models/yolov8_m.py', '../_base_/yolov8_300e_voc.py']

model = dict(bbox_head=dict(num_classes=20))
