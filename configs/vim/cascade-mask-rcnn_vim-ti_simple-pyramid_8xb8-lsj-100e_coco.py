# The backbone starts from random values unless it is given weights: model.backbone.init_cfg; see README.md.
_base_ = [
    '../_base_/models/cascade-mask-rcnn_vim-ti_simple-pyramid.py',
    '../_base_/datasets/coco_instance_lsj.py',
    '../_base_/schedules/adamw_amp_lsj-100e.py',
]
