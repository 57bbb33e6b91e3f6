_base_ = './mask-rcnn_efficient-vmamba-t_fpn_amp-1x_coco.py'

model = dict(backbone=dict(arch='s'), neck=dict(in_channels=[64, 128, 256, 512]))
