# Table 2: no SS2D in the ODSS blocks.
_base_ = '../mamba-yolo_t_8xb64-300e_coco.py'

model = dict(backbone=dict(num_ss2d=0), neck=dict(num_ss2d=0))
