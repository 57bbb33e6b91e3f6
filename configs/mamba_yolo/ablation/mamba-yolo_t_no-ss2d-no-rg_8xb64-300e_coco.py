# Table 2: neither SS2D nor RG block: of an ODSS block only its 1x1 projection is left.
_base_ = '../mamba-yolo_t_8xb64-300e_coco.py'

model = dict(backbone=dict(num_ss2d=0, mlp=None), neck=dict(num_ss2d=0, mlp=None))
