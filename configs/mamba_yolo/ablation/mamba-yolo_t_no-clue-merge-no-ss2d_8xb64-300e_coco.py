# Table 2: neither Vision Clue Merge nor SS2D.
_base_ = '../mamba-yolo_t_8xb64-300e_coco.py'

model = dict(backbone=dict(downsample='conv', num_ss2d=0), neck=dict(num_ss2d=0))
