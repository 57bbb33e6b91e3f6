# Table 4: feature maps P2 to P5, where the base has P3 to P5.
_base_ = '../mamba-yolo_t_8xb64-300e_coco.py'

model = dict(
    backbone=dict(out_indices=(0, 1, 2, 3)),
    neck=dict(in_channels=[32, 64, 128, 256]),
    bbox_head=dict(in_channels=[32, 64, 128, 256], strides=[4, 8, 16, 32]))
