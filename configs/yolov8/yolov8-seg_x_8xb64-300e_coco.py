_base_ = ['../_base_/models/yolov8_x.py', '../_base_/yolov8_300e_coco_instance.py']

model = dict(data_preprocessor=dict(pad_mask=True), bbox_head=dict(type='YOLOv8InsHead'))
