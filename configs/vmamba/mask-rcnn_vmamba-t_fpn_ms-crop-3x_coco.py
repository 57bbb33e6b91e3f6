_base_ = ['mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_ms-crop-3x_coco.py', '../_base_/coco_in_mmdet.py']
globals().update(_base_.coco)

# The public classifier: load_pretrained converts it. A path will do as well.
pretrained = 'https://github.com/MzeroMiko/VMamba/releases/download/%23v2cls/vssm1_tiny_0230s_ckpt_epoch_264.pth'

model = dict(
    backbone=dict(
        _delete_=True,
        type='VMamba',
        arch='t',
        drop_path_rate=0.2,
        init_cfg=dict(type='Pretrained', checkpoint=pretrained)))
