_base_ = './atss_od-mamba-t_fpn_1x_coco.py'

model = dict(backbone=dict(arch='b'), neck=dict(in_channels=[128, 256, 512]))
