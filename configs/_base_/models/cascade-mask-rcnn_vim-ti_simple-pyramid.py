# Heads as the reference has them in Detectron2: layer norms after their convolutions, L1 losses for the boxes.
_base_ = 'mmdet::_base_/models/cascade-mask-rcnn_r50_fpn.py'

norm_cfg = dict(type='LayerNorm2d', eps=1e-6)

model = dict(
    # Images become squares of 1024 x 1024, as those that the published weights have seen. For less work in tests, 32
    # will do: the backbone takes any shape.
    data_preprocessor=dict(pad_size_divisor=1024),
    backbone=dict(_delete_=True, type='Vim', arch='ti', img_size=1024, drop_path_rate=0.1),
    neck=dict(_delete_=True, type='SimpleFeaturePyramid', in_channels=192, out_channels=256, num_outs=5),
    rpn_head=dict(num_convs=2, loss_bbox=dict(_delete_=True, type='L1Loss', loss_weight=1.0)),
    roi_head=dict(
        bbox_head=[
            dict(
                type='Shared4Conv1FCBBoxHead',
                in_channels=256,
                fc_out_channels=1024,
                roi_feat_size=7,
                num_classes=80,
                bbox_coder=dict(
                    type='DeltaXYWHBBoxCoder',
                    target_means=[0.0] * 4,
                    target_stds=[1 / position, 1 / position, 1 / size, 1 / size]),
                reg_class_agnostic=True,
                norm_cfg=norm_cfg,
                loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
                loss_bbox=dict(type='L1Loss', loss_weight=1.0)) for position, size in ((10, 5), (20, 10), (30, 15))
        ],
        mask_head=dict(norm_cfg=norm_cfg)))
