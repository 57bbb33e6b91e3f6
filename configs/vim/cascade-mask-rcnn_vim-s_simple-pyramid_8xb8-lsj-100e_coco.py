_base_ = './cascade-mask-rcnn_vim-ti_simple-pyramid_8xb8-lsj-100e_coco.py'

model = dict(backbone=dict(arch='s'), neck=dict(in_channels=384))
