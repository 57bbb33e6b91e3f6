_base_ = './fcos_od-mamba-t_fpn_gn-head_1x_coco.py'

model = dict(backbone=dict(arch='b'), neck=dict(in_channels=[128, 256, 512]))
