# The backbone starts from random values unless it is given weights: model.backbone.init_cfg; see README.md. The
# published ones are under a non-commercial licence, and therefore not downloaded automatically.
_base_ = [
    '../_base_/models/cascade-mask-rcnn_mamba-vision-t_fpn_4conv1fc-giou.py',
    '../_base_/datasets/coco_instance_ms-crop.py',
    '../_base_/schedules/adamw_amp_3x.py',
    'mmdet::_base_/default_runtime.py',
]
