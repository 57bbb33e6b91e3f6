_base_ = './retinanet_r18_fpn_1xb4-10e_bccd.py'

model = dict(
    backbone=dict(_delete_=True, type='ODMamba', arch='t', out_indices=(1, 2, 3), ssm_init='mamba'),
    neck=dict(in_channels=[64, 128, 256], start_level=0))
