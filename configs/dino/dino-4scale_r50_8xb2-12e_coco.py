# mmdet's DINO-4scale with ResNet-50: the detector that the paper's figure 4 compares with.
_base_ = ['mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py', '../_base_/coco_in_mmdet.py']
globals().update(_base_.coco)

own_settings = ['optim_wrapper']  # what `--data` leaves as it is: DINO does not train with another's optimizer

model = dict(bbox_head=dict(type='ClippedDINOHead'))
