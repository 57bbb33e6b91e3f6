# As Mamba YOLO's public code has the backbone: Blocks [3, 3, 9, 3], and an LSBlock before every scan.
_base_ = './retinanet_od-mamba-t_fpn_1xb4-10e_bccd.py'

model = dict(backbone=dict(depths=(1, 1, 3, 1), local_spatial=True))
