# As the public code has it: Blocks [3, 3, 9, 3], and an LSBlock before every scan.
_base_ = './mamba-yolo_t.py'

model = dict(backbone=dict(depths=(1, 1, 3, 1), local_spatial=True), neck=dict(local_spatial=True))
