# COCO at 640 x 640 with masks; pipelines as for boxes.
_base_ = './coco_640.py'

load_pipeline = [
    _base_.load_pipeline[0],
    dict(type='LoadInstanceMasks'),
    _base_.load_pipeline[2],
]
# Masks are made small by the data workers.
colour_and_flip = [*_base_.colour_and_flip[:-1], {**_base_.colour_and_flip[-1], 'type': 'PackMaskTargets'}]
mosaic_pipeline = [
    {**_base_.mosaic_pipeline[0], 'type': 'MosaicWithMasks'},
    _base_.mosaic_pipeline[1],
    *colour_and_flip,
]
last_pipeline = [*_base_.last_pipeline[:2], *colour_and_flip]
tta_model = dict(type='InsTTAModel')

train_dataloader = dict(dataset=dict(dataset=dict(pipeline=load_pipeline), pipeline=mosaic_pipeline))
# A batch's masks take a byte for each of the pixels of 300 images.
val_dataloader = dict(batch_size=8)
test_dataloader = val_dataloader

val_evaluator = dict(metric=['bbox', 'segm'])
test_evaluator = val_evaluator
