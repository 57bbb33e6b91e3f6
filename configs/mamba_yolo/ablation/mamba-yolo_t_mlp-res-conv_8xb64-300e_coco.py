# Table 3, 'Res-Convolutional MLP': that convolution as a residual.
_base_ = '../mamba-yolo_t_8xb64-300e_coco.py'

model = dict(backbone=dict(mlp='res_conv'), neck=dict(mlp='res_conv'))
