# BCCD (blood cells, github.com/Shenggan/BCCD_Dataset, as COCO json) at 320 x 320; pipelines as for COCO.
_base_ = './coco_640.py'

data_root = '{{$BCCD:data/bccd/}}'  # the environment variable BCCD, else data/bccd/
metainfo = dict(classes=('RBC', 'WBC', 'Platelets'), palette=[(220, 20, 60), (60, 90, 220), (240, 180, 0)])
img_scale = (320, 320)

# COCO's steps, those with a size at this one.
load_pipeline = [*_base_.load_pipeline[:2], {**_base_.load_pipeline[2], 'scale': img_scale}]
pad = {**_base_.pad, 'size': img_scale}
letterbox = {**_base_.letterbox, 'size': img_scale}
mosaic_pipeline = [
    {**_base_.mosaic_pipeline[0], 'img_scale': img_scale},
    {**_base_.mosaic_pipeline[1], 'border': (-img_scale[0] // 2, -img_scale[1] // 2)},
    *_base_.colour_and_flip,
]
last_pipeline = [pad, *_base_.last_pipeline[1:]]
test_pipeline = [
    _base_.test_pipeline[0],
    {**_base_.test_pipeline[1], 'scale': img_scale},
    letterbox,
    *_base_.test_pipeline[3:],
]
tta_resize = [dict(type='Resize', scale=(side, side), keep_ratio=True) for side in (256, 320, 384)]
tta_pipeline = [
    _base_.tta_pipeline[0],
    {**_base_.tta_pipeline[1], 'transforms': [tta_resize, *_base_.tta_pipeline[1].transforms[1:]]},
]

train_dataloader = dict(
    batch_size=16,
    num_workers=2,
    pin_memory=False,
    dataset=dict(
        dataset=dict(
            data_root=data_root,
            metainfo=metainfo,
            ann_file='annotations/instances_train.json',
            data_prefix=dict(img='images/'),
            pipeline=load_pipeline),
        pipeline=mosaic_pipeline))
val_dataloader = dict(
    batch_size=16,
    num_workers=2,
    pin_memory=False,
    dataset=dict(
        data_root=data_root,
        metainfo=metainfo,
        ann_file='annotations/instances_val.json',
        data_prefix=dict(img='images/'),
        pipeline=test_pipeline))
test_dataloader = val_dataloader

val_evaluator = dict(ann_file=data_root + '/annotations/instances_val.json')
test_evaluator = val_evaluator
