_base_ = ['mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py', '../_base_/od_mamba_in_mmdet.py']
globals().update(_base_.coco)

own_settings = ['optim_wrapper']  # what `--data` leaves as it is

model = dict(
    backbone=dict(_delete_=True, type='ODMamba', arch='t', out_indices=(1, 2, 3), norm_cfg=_base_.sync_bn),
    neck=dict(in_channels=[64, 128, 256]),
    bbox_head=dict(type='ClippedDeformableDETRHead'))

# The base's tenth of the learning rate is for a backbone that has been trained.
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys=dict(
            _delete_=True,
            sampling_offsets=dict(lr_mult=0.1),
            reference_points=dict(lr_mult=0.1),
            **_base_.undecayed)))
