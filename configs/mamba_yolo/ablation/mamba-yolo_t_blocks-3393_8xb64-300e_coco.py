# Table 4: Blocks [3, 3, 9, 3], times T's depth multiple.
_base_ = '../mamba-yolo_t_8xb64-300e_coco.py'

model = dict(backbone=dict(depths=(1, 1, 3, 1)))
