_base_ = ['mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', '../_base_/od_mamba_in_mmdet.py']
globals().update(_base_.coco)

model = dict(
    backbone=dict(_delete_=True, type='ODMamba', arch='t', out_indices=(0, 1, 2, 3), norm_cfg=_base_.sync_bn),
    neck=dict(in_channels=[32, 64, 128, 256]))

optim_wrapper = dict(
    optimizer=dict(_delete_=True, **_base_.adamw), paramwise_cfg=_base_.adamw_groups)
