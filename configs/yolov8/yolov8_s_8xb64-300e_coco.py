_base_ = ['../_base_/models/yolov8_s.py', '../_base_/yolov8_300e_coco.py']
