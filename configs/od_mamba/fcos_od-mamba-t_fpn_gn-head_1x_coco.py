_base_ = ['mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py', '../_base_/od_mamba_in_mmdet.py']
globals().update(_base_.coco)

# The base's input, BGR that is not scaled, is that of its Caffe weights; without them it is as in the other detectors.
model = dict(
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True),
    backbone=dict(_delete_=True, type='ODMamba', arch='t', out_indices=(1, 2, 3), norm_cfg=_base_.sync_bn),
    neck=dict(in_channels=[64, 128, 256], start_level=0))

optim_wrapper = dict(
    optimizer=dict(_delete_=True, **_base_.adamw), paramwise_cfg=dict(_delete_=True, **_base_.adamw_groups))
