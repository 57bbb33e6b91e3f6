_base_ = './yolov8_n.py'

model = dict(
    backbone=dict(arch='s'),
    neck=dict(in_channels=[128, 256, 512]),
    bbox_head=dict(in_channels=[128, 256, 512]))
