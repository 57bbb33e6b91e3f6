# As the public code has it: Blocks [3, 3, 9, 3], and an LSBlock before every scan.
_base_ = './mamba-yolo_l.py'

model = dict(backbone=dict(depths=(2, 2, 6, 2), local_spatial=True), neck=dict(local_spatial=True))
