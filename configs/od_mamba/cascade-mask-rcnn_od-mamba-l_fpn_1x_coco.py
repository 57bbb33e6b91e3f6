_base_ = './cascade-mask-rcnn_od-mamba-t_fpn_1x_coco.py'

model = dict(backbone=dict(arch='l'), neck=dict(in_channels=[96, 192, 384, 576]))
