_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    'mmdet::_base_/datasets/coco_detection.py',
    'mmdet::_base_/default_runtime.py',
    'mmdet::retinanet/retinanet_tta.py',
    '../_base_/schedules/adamw_amp_1x.py',
    '../_base_/coco_in_mmdet.py',
]
globals().update(_base_.coco)

model = dict(
    # Random values, unless it is given the reference's weights: model.backbone.init_cfg; see README.md.
    backbone=dict(_delete_=True, type='EfficientVMamba', arch='t', out_indices=(1, 2, 3), drop_path_rate=0.1),
    neck=dict(in_channels=[96, 192, 384], start_level=0))
