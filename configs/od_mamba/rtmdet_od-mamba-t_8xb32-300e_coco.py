_base_ = ['mmdet::rtmdet/rtmdet_s_8xb32-300e_coco.py', '../_base_/od_mamba_in_mmdet.py']
globals().update(_base_.coco)

checkpoint = None  # the base's backbone's
model = dict(
    backbone=dict(_delete_=True, type='ODMamba', arch='t', out_indices=(1, 2, 3), norm_cfg=_base_.sync_bn),
    neck=dict(in_channels=[64, 128, 256], out_channels=64),
    bbox_head=dict(type='ClippedRTMDetSepBNHead', in_channels=64, feat_channels=64))

optim_wrapper = dict(paramwise_cfg=dict(custom_keys=_base_.undecayed))
auto_scale_lr = dict(base_batch_size=256)
