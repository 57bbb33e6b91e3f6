_base_ = 'mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py'

custom_imports = dict(imports=['mmmamba'])
data_root = '{{$COCO:data/coco/}}'  # the environment variable COCO, else data/coco/
# The public classifier: load_pretrained converts it. A path will do as well.
pretrained = 'https://github.com/MzeroMiko/VMamba/releases/download/%23v2cls/vssm1_tiny_0230s_ckpt_epoch_264.pth'

model = dict(
    backbone=dict(
        _delete_=True,
        type='VMamba',
        arch='t',
        drop_path_rate=0.2,
        init_cfg=dict(type='Pretrained', checkpoint=pretrained)))

train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = dict(dataset=dict(data_root=data_root))
val_evaluator = dict(ann_file=data_root + '/annotations/instances_val2017.json')
test_evaluator = dict(ann_file=data_root + '/annotations/instances_val2017.json')
