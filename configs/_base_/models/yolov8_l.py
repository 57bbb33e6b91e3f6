_base_ = './yolov8_n.py'

model = dict(
    backbone=dict(arch='l'),
    neck=dict(in_channels=[256, 512, 512], num_blocks=3),
    bbox_head=dict(in_channels=[256, 512, 512]))
