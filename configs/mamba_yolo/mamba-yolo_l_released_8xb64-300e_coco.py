_base_ = ['../_base_/models/mamba-yolo_l_released.py', '../_base_/yolov8_300e_coco.py']
