_base_ = './yolov8_n.py'

model = dict(
    backbone=dict(arch='x'),
    neck=dict(in_channels=[320, 640, 640], num_blocks=3),
    bbox_head=dict(in_channels=[320, 640, 640]))
