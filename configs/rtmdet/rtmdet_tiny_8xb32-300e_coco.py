# mmdet's RTMDet-tiny.
_base_ = ['mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py', '../_base_/coco_in_mmdet.py']
globals().update(_base_.coco)

model = dict(bbox_head=dict(type='ClippedRTMDetSepBNHead'))

auto_scale_lr = dict(base_batch_size=256)
