_base_ = './rtmdet_od-mamba-t_8xb32-300e_coco.py'

model = dict(
    backbone=dict(arch='l'),
    neck=dict(in_channels=[192, 384, 576], out_channels=192, num_csp_blocks=2),
    bbox_head=dict(in_channels=192, feat_channels=192))
