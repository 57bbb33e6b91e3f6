# Table 4: a neck without ODSS blocks, only their 1x1 projections.
_base_ = '../mamba-yolo_t_8xb64-300e_coco.py'

model = dict(neck=dict(ssm=False))
