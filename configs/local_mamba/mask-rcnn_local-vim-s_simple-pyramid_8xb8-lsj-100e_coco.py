_base_ = [
    '../_base_/models/mask-rcnn_local-vim-t_simple-pyramid.py',
    '../_base_/datasets/coco_instance_lsj.py',
    '../_base_/schedules/adamw_amp_lsj-100e_stem-decay.py',
]

# Random values, unless it is given weights: those of the public classifier were trained in other directions; see
# README.md.
model = dict(backbone=dict(arch='s'), neck=dict(in_channels=384))
