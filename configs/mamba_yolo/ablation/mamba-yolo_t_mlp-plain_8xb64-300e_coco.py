# Table 3, 'MLP': a plain MLP instead of the RG block.
_base_ = '../mamba-yolo_t_8xb64-300e_coco.py'

model = dict(backbone=dict(mlp='mlp'), neck=dict(mlp='mlp'))
