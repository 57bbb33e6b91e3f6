# mmdet's DINO-4scale with ResNet-50: the detector that the paper's figure 4 compares with.
_base_ = ['mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py', '../_base_/coco_in_mmdet.py']

own_settings = ['optim_wrapper']  # what `--data` leaves as it is: DINO does not train with another's optimizer

model = dict(bbox_head=dict(type='ClippedDINOHead'))

data_root = _base_.coco_root
train_dataloader = _base_.coco_dataloader
val_dataloader = _base_.coco_dataloader
test_dataloader = _base_.coco_dataloader
val_evaluator = _base_.coco_evaluator
test_evaluator = _base_.coco_evaluator
