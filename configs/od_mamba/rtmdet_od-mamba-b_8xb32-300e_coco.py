_base_ = './rtmdet_od-mamba-t_8xb32-300e_coco.py'

model = dict(
    backbone=dict(arch='b'),
    neck=dict(in_channels=[128, 256, 512], out_channels=128),
    bbox_head=dict(in_channels=128, feat_channels=128))
