# mmdet's YOLOX-s.
_base_ = ['mmdet::yolox/yolox_s_8xb8-300e_coco.py', '../_base_/coco_in_mmdet.py']
globals().update(_base_.coco)

model = dict(bbox_head=dict(type='ClippedYOLOXHead'))

train_dataloader = dict(dataset=_base_.coco_dataloader)  # inside of MultiImageMixDataset
