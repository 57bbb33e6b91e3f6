_base_ = [
    '../_base_/models/mask-rcnn_local-vim-t_simple-pyramid.py',
    '../_base_/datasets/coco_instance_lsj.py',
    '../_base_/schedules/adamw_amp_lsj-100e_stem-decay.py',
]

# The public classifier: load_pretrained converts it. A path will do as well.
pretrained = 'https://github.com/hunto/LocalMamba/releases/download/v1.0.0/local_vim_tiny.ckpt'

model = dict(backbone=dict(init_cfg=dict(type='Pretrained', checkpoint=pretrained)))
