# Table 3, 'Convolutional MLP': a depthwise convolution inside the MLP.
_base_ = '../mamba-yolo_t_8xb64-300e_coco.py'

model = dict(backbone=dict(mlp='conv'), neck=dict(mlp='conv'))
