# mmdet's YOLOX-s.
_base_ = ['mmdet::yolox/yolox_s_8xb8-300e_coco.py', '../_base_/coco_in_mmdet.py']

model = dict(bbox_head=dict(type='ClippedYOLOXHead'))

data_root = _base_.coco_root
train_dataloader = dict(dataset=_base_.coco_dataloader)
val_dataloader = _base_.coco_dataloader
test_dataloader = _base_.coco_dataloader
val_evaluator = _base_.coco_evaluator
test_evaluator = _base_.coco_evaluator
