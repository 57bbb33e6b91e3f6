_base_ = ['mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py', '../_base_/od_mamba_in_mmdet.py']
globals().update(_base_.coco)

own_settings = ['optim_wrapper']  # what `--data` leaves as it is

model = dict(
    backbone=dict(_delete_=True, type='ODMamba', arch='t', out_indices=(1, 2, 3), norm_cfg=_base_.sync_bn),
    neck=dict(in_channels=[64, 128, 256]),
    bbox_head=dict(type='ClippedDINOHead'))

# The base's tenth of the learning rate is for a backbone that has been trained.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(_delete_=True, **_base_.undecayed)))
