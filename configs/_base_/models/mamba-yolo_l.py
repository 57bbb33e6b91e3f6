_base_ = './mamba-yolo_t.py'

model = dict(
    backbone=dict(arch='l'),
    neck=dict(in_channels=[192, 384, 576], num_ss2d=2),
    bbox_head=dict(in_channels=[192, 384, 576]))
