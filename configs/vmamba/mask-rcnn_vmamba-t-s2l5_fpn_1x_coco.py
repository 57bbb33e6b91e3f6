_base_ = './mask-rcnn_vmamba-t_fpn_1x_coco.py'

pretrained = 'https://github.com/MzeroMiko/VMamba/releases/download/%23v2cls/vssm_tiny_0230_ckpt_epoch_262.pth'

model = dict(
    backbone=dict(arch='t_s2l5', drop_path_rate=0.2, init_cfg=dict(checkpoint=pretrained)))
