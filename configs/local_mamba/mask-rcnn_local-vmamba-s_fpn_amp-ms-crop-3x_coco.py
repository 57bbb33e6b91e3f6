_base_ = './mask-rcnn_local-vmamba-t_fpn_amp-ms-crop-3x_coco.py'

# The public classifier: load_pretrained converts it. A path will do as well.
pretrained = 'https://github.com/hunto/LocalMamba/releases/download/v1.0.0/local_vssm_small.ckpt'

model = dict(backbone=dict(arch='s', init_cfg=dict(type='Pretrained', checkpoint=pretrained)))
