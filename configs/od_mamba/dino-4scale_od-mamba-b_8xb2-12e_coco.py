_base_ = './dino-4scale_od-mamba-t_8xb2-12e_coco.py'

model = dict(backbone=dict(arch='b'), neck=dict(in_channels=[128, 256, 512]))
