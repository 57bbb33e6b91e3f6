# Heads as ViTDet has them: layer norms after their convolutions.
_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'

norm_cfg = dict(type='LayerNorm2d', eps=1e-6)

model = dict(
    # Images become squares of 1024 x 1024, as those that the published weights have seen. For less work in tests, 32
    # will do: the backbone takes any shape.
    data_preprocessor=dict(pad_size_divisor=1024),
    backbone=dict(_delete_=True, type='LocalVim', arch='t', img_size=1024, drop_path_rate=0.1),
    neck=dict(_delete_=True, type='SimpleFeaturePyramid', in_channels=192, out_channels=256, num_outs=5),
    rpn_head=dict(num_convs=2),
    roi_head=dict(
        bbox_head=dict(type='Shared4Conv1FCBBoxHead', conv_out_channels=256, norm_cfg=norm_cfg),
        mask_head=dict(norm_cfg=norm_cfg)))
