_base_ = ['../_base_/models/mamba-yolo_b.py', '../_base_/yolov8_300e_coco.py']

model = dict(
    # torchvision's weights want RGB of mean 0 and deviation 1.
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], pad_value=0),
    backbone=dict(
        _delete_=True,
        type='ResNet',
        depth=50,
        out_indices=(1, 2, 3),
        norm_eval=False,
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50')),
    neck=dict(in_channels=[512, 1024, 2048], out_channels=[128, 256, 512]))
