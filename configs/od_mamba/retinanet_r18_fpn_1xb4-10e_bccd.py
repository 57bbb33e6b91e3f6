# RetinaNet from scratch, small: the baseline of retinanet_od-mamba-t_fpn_1xb4-10e_bccd.py. Nothing is pretrained, so
# the pyramid and the head have group norms; 128 channels and two convolutions are enough for three classes.
_base_ = ['mmdet::_base_/models/retinanet_r50_fpn.py', '../_base_/yolov8_30e_bccd.py']

norm_cfg = dict(type='GN', num_groups=32)
model = dict(
    data_preprocessor=dict(mean=[0, 0, 0], std=[255, 255, 255], pad_value=114),
    backbone=dict(depth=18, frozen_stages=-1, norm_eval=False, init_cfg=None),
    neck=dict(in_channels=[64, 128, 256, 512], out_channels=128, norm_cfg=norm_cfg),
    bbox_head=dict(num_classes=3, in_channels=128, feat_channels=128, stacked_convs=2, norm_cfg=norm_cfg))

max_epochs = 10
train_cfg = dict(max_epochs=max_epochs, val_interval=5)
train_dataloader = dict(batch_size=4)
custom_hooks = [
    *_base_.custom_hooks[:-1],
    {**_base_.custom_hooks[-1], 'switch_epoch': max_epochs - 3},  # PipelineSwitchHook
]
auto_scale_lr = dict(base_batch_size=4)
