# Table 2: 3x3 convolutions of stride 2 instead of Vision Clue Merge.
_base_ = '../mamba-yolo_t_8xb64-300e_coco.py'

model = dict(backbone=dict(downsample='conv'))
