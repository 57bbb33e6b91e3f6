_base_ = './mamba-yolo_t.py'

model = dict(
    backbone=dict(arch='b'),
    neck=dict(in_channels=[128, 256, 512]),
    bbox_head=dict(in_channels=[128, 256, 512]))
