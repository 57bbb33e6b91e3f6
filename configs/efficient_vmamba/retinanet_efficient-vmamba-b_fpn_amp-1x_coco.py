_base_ = './retinanet_efficient-vmamba-t_fpn_amp-1x_coco.py'

model = dict(backbone=dict(arch='b'), neck=dict(in_channels=[192, 384, 768]))
