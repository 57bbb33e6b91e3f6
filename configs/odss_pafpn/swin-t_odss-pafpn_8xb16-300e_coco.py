_base_ = ['../_base_/models/mamba-yolo_b.py', '../_base_/yolov8_300e_coco.py']

checkpoint = 'https://github.com/SwinTransformer/storage/releases/download/v1.0.0/swin_tiny_patch4_window7_224.pth'
model = dict(
    # Swin's weights want RGB of mean 0 and deviation 1.
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], pad_value=0),
    backbone=dict(
        _delete_=True,
        type='SwinTransformer',
        embed_dims=96,
        depths=[2, 2, 6, 2],
        num_heads=[3, 6, 12, 24],
        window_size=7,
        drop_path_rate=0.2,
        out_indices=(1, 2, 3),
        convert_weights=True,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    neck=dict(in_channels=[192, 384, 768], out_channels=[128, 256, 512]))

# AdamW, its rate and its batch are those of RTMDet with a Swin backbone in mmdet; its decay is not scaled
# with the batch.
optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=0.001, weight_decay=0.05))
param_scheduler = [{**_base_.param_scheduler[0], 'bias_start_lr': 0.0}]
custom_hooks = [hook for hook in _base_.custom_hooks if hook['type'] != 'ScaleWeightDecayHook']

train_dataloader = dict(batch_size=16)
auto_scale_lr = dict(base_batch_size=128)
