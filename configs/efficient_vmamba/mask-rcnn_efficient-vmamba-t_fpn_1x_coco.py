_base_ = ['mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', '../_base_/efficient_vmamba_in_mmdet.py']

model = dict(
    # Weights of the reference: init_cfg=dict(type='Pretrained', checkpoint='<file>'); see README.md.
    backbone=dict(_delete_=True, type='EfficientVMamba', arch='t', out_indices=(0, 1, 2, 3), drop_path_rate=0.1),
    neck=dict(in_channels=[48, 96, 192, 384]))

optim_wrapper = _base_.amp_adamw
param_scheduler = _base_.swin_1x

data_root = _base_.coco_root
train_dataloader = _base_.coco_dataloader
val_dataloader = _base_.coco_dataloader
test_dataloader = _base_.coco_dataloader
val_evaluator = _base_.coco_evaluator
test_evaluator = _base_.coco_evaluator
