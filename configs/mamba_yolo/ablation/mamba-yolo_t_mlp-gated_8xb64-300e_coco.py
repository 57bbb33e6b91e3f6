# Table 3, 'Gated MLP': the RG block without its convolution.
_base_ = '../mamba-yolo_t_8xb64-300e_coco.py'

model = dict(backbone=dict(mlp='gated'), neck=dict(mlp='gated'))
