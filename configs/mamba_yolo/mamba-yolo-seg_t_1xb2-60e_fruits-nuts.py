# Mamba YOLO-T with masks from scratch on 14 images, tested on the same: a check, within minutes on a CPU, that masks
# are learnt. Steps, optimizer and schedule are those of the demo's short recipe.
_base_ = [
    '../_base_/models/mamba-yolo_t.py', '../_base_/datasets/fruits_nuts_320.py', '../_base_/default_runtime.py'
]

model = dict(
    data_preprocessor=dict(pad_mask=True, pad_size_divisor=32),
    backbone=dict(ssm_init='mamba'),
    neck=dict(ssm_init='mamba'),
    bbox_head=dict(type='YOLOv8InsHead', num_classes=3))

load_masks = dict(type='LoadInstanceMasks')
train_pipeline = [
    _base_.train_pipeline[0],
    load_masks,
    *_base_.train_pipeline[2:-1],
    dict(type='PackMaskTargets'),
]
test_pipeline = [*_base_.test_pipeline[:2], load_masks, _base_.test_pipeline[3]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

max_epochs = 60
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=20)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(logger=dict(interval=7), checkpoint=dict(interval=max_epochs, save_best=None))
custom_hooks = [dict(type='ClassCountHook'), dict(type='NonFiniteLossHook'), dict(type='UnreadableImagesHook')]

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=0.002, weight_decay=0.05),
    constructor='YOLOOptimWrapperConstructor',
    clip_grad=dict(max_norm=100.0))
param_scheduler = dict(
    type='WarmupLinearLR', warmup_epochs=3, bias_start_lr=0.0, end_factor=0.01, convert_to_iter_based=True)
