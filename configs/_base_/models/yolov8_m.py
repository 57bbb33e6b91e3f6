_base_ = './yolov8_n.py'

model = dict(
    backbone=dict(arch='m'),
    neck=dict(in_channels=[192, 384, 576], num_blocks=2),
    bbox_head=dict(in_channels=[192, 384, 576]))
