# The recipe of YOLOv8 and Mamba YOLO. Its learning rate is meant for any batch, its weight decay for one of 64
# (ScaleWeightDecayHook); the losses grow with the batch.
max_epochs = 300

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=10)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.01, momentum=0.937, nesterov=True, weight_decay=5e-4),
    constructor='YOLOOptimWrapperConstructor',
    clip_grad=dict(max_norm=10.0))

# `end` of the learning rate, the number of epochs, is that of train_cfg.
param_scheduler = [
    dict(
        type='WarmupLinearLR',
        end_factor=0.01,
        warmup_epochs=3,
        min_warmup_iters=100,
        bias_start_lr=0.1,
        convert_to_iter_based=True),
    dict(type='WarmupMomentum', start=0.8, warmup_epochs=3, min_warmup_iters=100, convert_to_iter_based=True),
]

# Decay 0.9999 · (1 - exp(-iteration / 2000)).
custom_hooks = [
    dict(type='EMAHook', ema_type='ExpMomentumEMA', momentum=1e-4, gamma=2000, update_buffers=True, priority=49),
    dict(type='ScaleWeightDecayHook', base_batch_size=64),
    dict(type='ClassCountHook'),
    dict(type='NonFiniteLossHook'),
    dict(type='UnreadableImagesHook'),
    dict(type='ExactResumeHook'),
]

auto_scale_lr = dict(enable=False, base_batch_size=512)
