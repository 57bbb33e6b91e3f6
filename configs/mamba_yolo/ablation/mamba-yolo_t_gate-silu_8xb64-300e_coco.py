# The gate question: SiLU in the RG blocks, where the base has GELU.
_base_ = '../mamba-yolo_t_8xb64-300e_coco.py'

model = dict(backbone=dict(gate_act='silu'), neck=dict(gate_act='silu'))
