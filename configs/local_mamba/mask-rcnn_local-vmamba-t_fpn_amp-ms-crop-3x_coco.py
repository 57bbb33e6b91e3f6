# The backbone starts from random values unless it is given weights: model.backbone.init_cfg; see README.md.
_base_ = [
    '../_base_/models/mask-rcnn_local-vmamba-t_fpn.py',
    '../_base_/datasets/coco_instance_ms-crop.py',
    '../_base_/schedules/adamw_amp_3x.py',
    'mmdet::_base_/default_runtime.py',
]
