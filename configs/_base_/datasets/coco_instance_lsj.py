# COCO with masks under large-scale jitter: images scaled by 0.1 to 2.0 times 1024 and cropped to 1024 x 1024.
# Smaller ones are padded to this by the data_preprocessor of the model.
_base_ = ['mmdet::_base_/datasets/coco_instance.py', '../coco_in_mmdet.py']
globals().update(_base_.coco)

image_size = (1024, 1024)
train_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandomResize', scale=image_size, ratio_range=(0.1, 2.0), keep_ratio=True),
    dict(
        type='RandomCrop',
        crop_type='absolute_range',
        crop_size=image_size,
        recompute_bbox=True,
        allow_negative_crop=True),
    dict(type='FilterAnnotations', min_gt_bbox_wh=(1e-2, 1e-2)),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='Resize', scale=image_size, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]

train_dataloader = dict(
    batch_size=8,
    num_workers=8,
    sampler=dict(type='InfiniteSampler'),
    batch_sampler=None,  # images of one shape need no sorting by shape
    dataset=dict(**_base_.coco_dataloader.dataset, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(**_base_.coco_dataloader.dataset, pipeline=test_pipeline))
test_dataloader = val_dataloader
