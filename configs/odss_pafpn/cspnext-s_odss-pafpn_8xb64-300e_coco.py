_base_ = ['../_base_/models/mamba-yolo_b.py', '../_base_/yolov8_300e_coco.py']

checkpoint = 'https://download.openmmlab.com/mmdetection/v3.0/rtmdet/cspnext_rsb_pretrain/cspnext-s_imagenet_600e.pth'
model = dict(
    # RTMDet's weights want BGR of mean 0 and deviation 1.
    data_preprocessor=dict(
        mean=[103.53, 116.28, 123.675], std=[57.375, 57.12, 58.395], bgr_to_rgb=False, pad_value=0),
    backbone=dict(
        _delete_=True,
        type='CSPNeXt',
        arch='P5',
        deepen_factor=0.33,
        widen_factor=0.5,
        out_indices=(2, 3, 4),
        channel_attention=True,
        norm_cfg=dict(type='BN'),
        act_cfg=dict(type='SiLU', inplace=True),
        init_cfg=dict(type='Pretrained', prefix='backbone.', checkpoint=checkpoint)))
