# Table 2: neither Vision Clue Merge nor RG block.
_base_ = '../mamba-yolo_t_8xb64-300e_coco.py'

model = dict(backbone=dict(downsample='conv', mlp=None), neck=dict(mlp=None))
