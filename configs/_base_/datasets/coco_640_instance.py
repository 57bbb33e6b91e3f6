# COCO at 640 x 640 with masks; pipelines as for boxes.
_base_ = './coco_640.py'

load_masks = dict(type='LoadInstanceMasks')
load_pipeline = [_base_.load_pipeline[0], load_masks, _base_.load_pipeline[2]]
# Masks are made small by the data workers.
colour_and_flip = [*_base_.colour_and_flip[:-1], {**_base_.colour_and_flip[-1], 'type': 'PackMaskTargets'}]
mosaic_pipeline = [
    {**_base_.mosaic_pipeline[0], 'type': 'MosaicWithMasks'},
    _base_.mosaic_pipeline[1],
    *colour_and_flip,
]
last_pipeline = [*_base_.last_pipeline[:2], *colour_and_flip]
test_pipeline = [*_base_.test_pipeline[:3], load_masks, _base_.test_pipeline[4]]
tta_model = dict(type='InsTTAModel')
tta_views = _base_.tta_pipeline[1].transforms
tta_pipeline = [
    _base_.tta_pipeline[0],
    {**_base_.tta_pipeline[1], 'transforms': [*tta_views[:3], [load_masks], tta_views[4]]},
]

train_dataloader = dict(dataset=dict(dataset=dict(pipeline=load_pipeline), pipeline=mosaic_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

val_evaluator = dict(metric=['bbox', 'segm'])
test_evaluator = val_evaluator
