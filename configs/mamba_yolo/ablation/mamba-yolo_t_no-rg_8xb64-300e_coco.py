# Table 2: no RG block in the ODSS blocks.
_base_ = '../mamba-yolo_t_8xb64-300e_coco.py'

model = dict(backbone=dict(mlp=None), neck=dict(mlp=None))
