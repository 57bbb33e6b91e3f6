_base_ = './mask-rcnn_mamba-vision-t_fpn_amp-ms-crop-1x_coco.py'

model = dict(
    backbone=dict(arch='b', drop_path_rate=0.5),
    neck=dict(in_channels=[128, 256, 512, 1024]))
