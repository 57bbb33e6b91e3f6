# YOLOv8's recipe on COCO, with masks.
_base_ = ['./datasets/coco_640_instance.py', './schedules/yolov8_300e.py', './default_runtime.py']

custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type='PipelineSwitchHook',
        switch_epoch=_base_.max_epochs - 10,  # the last epochs see whole images; set it together with max_epochs
        switch_pipeline=_base_.last_pipeline),
]
