_base_ = './cascade-mask-rcnn_vim-ti_simple-pyramid_8xb8-lsj-100e_coco.py'

model = dict(backbone=dict(arch='b'), neck=dict(in_channels=768))
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.7))
