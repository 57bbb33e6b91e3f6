# AdamW in mixed precision for 184,375 iterations of 64 images, 100 epochs of COCO; rates decay from the last block of
# a plain backbone of 24 to its patches. With the runtime, which counts iterations too.
_base_ = 'mmdet::_base_/default_runtime.py'

train_cfg = dict(type='IterBasedTrainLoop', max_iters=184375, val_interval=5000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='AutocastOptimWrapper',
    dtype='float16',
    constructor='LayerDecayOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.1),
    # mmengine does not know RMSNorm as a norm: its weights are named.
    paramwise_cfg=dict(
        layer_decay_rate=0.837,
        norm_decay_mult=0.0,
        custom_keys={'pos_embed': dict(decay_mult=0.0), '.norm.': dict(decay_mult=0.0)}))

param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=250),
    dict(type='MultiStepLR', begin=0, end=184375, by_epoch=False, milestones=[163889, 177546], gamma=0.1),
]

default_hooks = dict(checkpoint=dict(by_epoch=False, interval=5000, max_keep_ckpts=3))
log_processor = dict(by_epoch=False)

auto_scale_lr = dict(enable=False, base_batch_size=64)
