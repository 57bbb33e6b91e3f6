_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'

model = dict(
    backbone=dict(_delete_=True, type='LocalVMamba', arch='t', drop_path_rate=0.2),
    neck=dict(in_channels=[96, 192, 384, 768]))
