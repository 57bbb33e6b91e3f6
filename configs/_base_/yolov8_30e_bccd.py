# A short run from scratch on a small data set, within minutes on a CPU. Augmentation, losses and schedule are those of
# YOLOv8's recipe. Some 570 steps are too few for SGD, and for an average over thousands of iterations: hence AdamW and
# an EMA over the last hundred.
_base_ = ['./datasets/bccd_320.py', './schedules/yolov8_300e.py', './default_runtime.py']

max_epochs = 30
train_cfg = dict(max_epochs=max_epochs, val_interval=5)
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=1))

optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=0.0014, weight_decay=0.05))
param_scheduler = [
    dict(
        type='WarmupLinearLR',
        end_factor=0.01,
        warmup_epochs=3,
        min_warmup_iters=100,
        bias_start_lr=0.0,
        convert_to_iter_based=True),
]

custom_hooks = [
    {**_base_.custom_hooks[0], 'momentum': 0.01, 'gamma': 100},  # EMAHook
    *_base_.custom_hooks[1:],
    dict(
        type='PipelineSwitchHook',
        switch_epoch=max_epochs - 10,  # the last epochs see whole images; set it together with max_epochs
        switch_pipeline=_base_.last_pipeline),
]

auto_scale_lr = dict(base_batch_size=16)
