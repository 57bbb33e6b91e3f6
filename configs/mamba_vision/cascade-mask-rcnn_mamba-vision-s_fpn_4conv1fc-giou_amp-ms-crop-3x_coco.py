_base_ = './cascade-mask-rcnn_mamba-vision-t_fpn_4conv1fc-giou_amp-ms-crop-3x_coco.py'

model = dict(
    backbone=dict(arch='s', drop_path_rate=0.3),
    neck=dict(in_channels=[96, 192, 384, 768]))
