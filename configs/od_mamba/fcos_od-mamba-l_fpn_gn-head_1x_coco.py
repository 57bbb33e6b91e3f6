_base_ = './fcos_od-mamba-t_fpn_gn-head_1x_coco.py'

model = dict(backbone=dict(arch='l'), neck=dict(in_channels=[192, 384, 576]))
