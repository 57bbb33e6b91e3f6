_base_ = [
    '../_base_/models/mask-rcnn_mamba-vision-t_fpn.py',
    '../_base_/datasets/coco_instance_ms-crop.py',
    '../_base_/schedules/adamw_amp_1x.py',
    '../_base_/default_runtime.py',
]

default_hooks = dict(checkpoint=dict(interval=1))
