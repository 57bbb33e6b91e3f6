_base_ = ['../_base_/models/yolov8_n.py', '../_base_/yolov8_30e_bccd.py']

model = dict(bbox_head=dict(num_classes=3))
