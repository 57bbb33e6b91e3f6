_base_ = './deformable-detr_od-mamba-t_16xb2-50e_coco.py'

model = dict(backbone=dict(arch='l'), neck=dict(in_channels=[192, 384, 576]))
