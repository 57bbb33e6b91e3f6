# The backbone starts from random values unless it is given weights: model.backbone.init_cfg; see README.md.
_base_ = [
    '../_base_/models/mask-rcnn_local-vmamba-t_fpn.py',
    'mmdet::_base_/datasets/coco_instance.py',
    'mmdet::_base_/default_runtime.py',
    '../_base_/schedules/adamw_amp_1x.py',
    '../_base_/coco_in_mmdet.py',
]
globals().update(_base_.coco)
