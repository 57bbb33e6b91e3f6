_base_ = [
    '../_base_/models/cascade-mask-rcnn_mamba-vision-t_fpn_4conv1fc-giou.py',
    '../_base_/datasets/coco_instance_ms-crop.py',
    '../_base_/schedules/adamw_amp_3x.py',
    '../_base_/default_runtime.py',
]

default_hooks = dict(checkpoint=dict(interval=1))
