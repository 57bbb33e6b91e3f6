# YOLOv8's recipe, shortened for a small data set and a CPU.
_base_ = ['./datasets/bccd_320.py', './schedules/yolov8_300e.py', './default_runtime.py']

max_epochs = 30
train_cfg = dict(max_epochs=max_epochs, val_interval=5)
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=1))

custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type='PipelineSwitchHook',
        switch_epoch=max_epochs - 10,  # the last epochs see whole images, no mosaics
        switch_pipeline=_base_.last_pipeline),
]

auto_scale_lr = dict(base_batch_size=16)
