# Mamba YOLO-T on a few hundred images, from scratch, in minutes on a CPU: what `make demo` trains. The recipe is not
# the paper's.
_base_ = ['../_base_/models/mamba-yolo_t.py', '../_base_/short_16e_demo.py']

model = dict(
    backbone=dict(ssm_init='mamba'),
    neck=dict(ssm_init='mamba'),
    bbox_head=dict(num_classes=len(_base_.classes)))
