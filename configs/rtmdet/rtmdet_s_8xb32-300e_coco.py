# mmdet's RTMDet-s.
_base_ = ['mmdet::rtmdet/rtmdet_s_8xb32-300e_coco.py', '../_base_/coco_in_mmdet.py']

model = dict(bbox_head=dict(type='ClippedRTMDetSepBNHead'))

auto_scale_lr = dict(base_batch_size=256)

data_root = _base_.coco_root
train_dataloader = _base_.coco_dataloader
val_dataloader = _base_.coco_dataloader
test_dataloader = _base_.coco_dataloader
val_evaluator = _base_.coco_evaluator
test_evaluator = _base_.coco_evaluator
