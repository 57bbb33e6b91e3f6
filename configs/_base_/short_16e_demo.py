# A few hundred images, from scratch, in minutes on a CPU. In so few iterations AdamW gets further than SGD, neither
# mosaic nor EMA has time to pay off, and images of 192 x 192 buy twice as many epochs as 256 x 256.
_base_ = './default_runtime.py'

max_epochs = 16
img_scale = (192, 192)
classes = tuple('0123456789')
data_root = 'work_dirs/demo/data/'

meta_keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=img_scale, keep_ratio=True),
    dict(type='Pad', size=img_scale, pad_val=dict(img=(114, 114, 114))),
    dict(type='CenteredRandomAffine', max_translate_ratio=0.1, scaling_ratio_range=(0.9, 1.1)),
    # No flip: a mirrored 2 is no 2.
    dict(type='PackDetInputs', meta_keys=meta_keys),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=img_scale, keep_ratio=True),
    dict(type='LetterboxPad', size=img_scale, pad_val=dict(img=(114, 114, 114))),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=meta_keys),
]

dataset = dict(type='CheckedCocoDataset', data_root=data_root, metainfo=dict(classes=classes))
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='SeededSampler', shuffle=True),
    dataset=dict(
        type='SeededDataset',
        dataset=dict(
            **dataset,
            ann_file='annotations/train.json',
            data_prefix=dict(img='train/'),
            filter_cfg=dict(filter_empty_gt=False),
            pipeline=train_pipeline[:2]),
        pipeline=train_pipeline[2:]))
val_dataloader = dict(
    batch_size=20,
    num_workers=1,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        **dataset,
        ann_file='annotations/val.json',
        data_prefix=dict(img='val/'),
        test_mode=True,
        pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='CocoMetric', ann_file=data_root + 'annotations/val.json', proposal_nums=(100, 1, 10))
test_evaluator = val_evaluator

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=2)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=0.002, weight_decay=0.05),
    constructor='YOLOOptimWrapperConstructor',
    clip_grad=dict(max_norm=100.0))
param_scheduler = dict(
    type='WarmupLinearLR', warmup_epochs=1, bias_start_lr=0.0, end_factor=0.01, convert_to_iter_based=True)

default_hooks = dict(
    logger=dict(interval=10), checkpoint=dict(interval=1, max_keep_ckpts=1, save_best=None))
custom_hooks = [
    dict(type='ClassCountHook'),
    dict(type='NonFiniteLossHook'),
    dict(type='UnreadableImagesHook'),
    dict(type='ExactResumeHook'),
]
