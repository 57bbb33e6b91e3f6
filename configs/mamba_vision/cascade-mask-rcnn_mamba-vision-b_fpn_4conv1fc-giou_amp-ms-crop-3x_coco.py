_base_ = './cascade-mask-rcnn_mamba-vision-t_fpn_4conv1fc-giou_amp-ms-crop-3x_coco.py'

model = dict(
    backbone=dict(arch='b', drop_path_rate=0.5),
    neck=dict(in_channels=[128, 256, 512, 1024]))
