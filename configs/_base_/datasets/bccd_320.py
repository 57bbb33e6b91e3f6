# BCCD (blood cells, github.com/Shenggan/BCCD_Dataset, as COCO json) at 320 x 320: mosaic, scale and shift, HSV,
# flip; letterbox for testing.
dataset_type = 'CheckedCocoDataset'
data_root = '{{$BCCD:data/bccd/}}'  # the environment variable BCCD, else data/bccd/
metainfo = dict(classes=('RBC', 'WBC', 'Platelets'), palette=[(220, 20, 60), (60, 90, 220), (240, 180, 0)])
backend_args = None
img_scale = (320, 320)

load_pipeline = [
    dict(type='LoadImageFromFile', backend_args=backend_args),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=img_scale, keep_ratio=True),
]
colour_and_flip = [
    dict(type='RandomHSV', hue=0.015, saturation=0.7, value=0.4),
    dict(type='RandomFlip', prob=0.5),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip', 'flip_direction')),
]
pad = dict(type='Pad', size=img_scale, pad_val=dict(img=(114, 114, 114)))
letterbox = {**pad, 'type': 'LetterboxPad'}  # boxes are clipped to the picture, not to the square
mosaic_pipeline = [
    dict(type='Mosaic', img_scale=img_scale, pad_val=114.0),
    dict(
        type='CenteredRandomAffine',
        max_translate_ratio=0.1,
        scaling_ratio_range=(0.5, 1.5),
        border=(-img_scale[0] // 2, -img_scale[1] // 2)),
    *colour_and_flip,
]
last_pipeline = [
    pad,
    dict(type='CenteredRandomAffine', max_translate_ratio=0.1, scaling_ratio_range=(0.5, 1.5)),
    *colour_and_flip,
]
test_pipeline = [
    dict(type='LoadImageFromFile', backend_args=backend_args),
    dict(type='Resize', scale=img_scale, keep_ratio=True),
    letterbox,
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
tta_model = dict(type='DetTTAModel', tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.65), max_per_img=300))
tta_pipeline = [
    dict(type='LoadImageFromFile', backend_args=backend_args),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='Resize', scale=(side, side), keep_ratio=True) for side in (256, 320, 384)],
            [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)],
            [dict(type='LetterboxPad', size_divisor=32, pad_val=dict(img=(114, 114, 114)))],
            [dict(type='LoadAnnotations', with_bbox=True)],
            [
                dict(
                    type='PackDetInputs',
                    meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip',
                               'flip_direction'))
            ],
        ]),
]

train_dataloader = dict(
    batch_size=16,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='SeededSampler', shuffle=True),
    dataset=dict(
        type='SeededDataset',
        dataset=dict(
            type=dataset_type,
            data_root=data_root,
            metainfo=metainfo,
            ann_file='annotations/instances_train.json',
            data_prefix=dict(img='images/'),
            filter_cfg=dict(filter_empty_gt=False),
            pipeline=load_pipeline,
            backend_args=backend_args),
        pipeline=mosaic_pipeline))
val_dataloader = dict(
    batch_size=16,
    num_workers=2,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        metainfo=metainfo,
        ann_file='annotations/instances_val.json',
        data_prefix=dict(img='images/'),
        test_mode=True,
        pipeline=test_pipeline,
        backend_args=backend_args))
test_dataloader = val_dataloader

val_evaluator = dict(
    type='CocoMetric',
    ann_file=data_root + '/annotations/instances_val.json',
    metric='bbox',
    proposal_nums=(100, 1, 10),
    backend_args=backend_args)
test_evaluator = val_evaluator
