# PASCAL VOC at 640 x 640: trained on 2007 and 2012 trainval, tested on 2007 test; pipelines as for COCO.
_base_ = './coco_640.py'

dataset_type = 'CheckedVOCDataset'
data_root = '{{$VOC:data/VOCdevkit/}}'  # the environment variable VOC, else data/VOCdevkit/

train_dataloader = dict(
    dataset=dict(
        dataset=dict(
            _delete_=True,
            type='ConcatDataset',
            ignore_keys=['dataset_type'],  # VOC2007 or VOC2012, which the two data sets note down
            datasets=[
                dict(
                    type=dataset_type,
                    data_root=data_root,
                    ann_file=f'VOC{year}/ImageSets/Main/trainval.txt',
                    data_prefix=dict(sub_data_root=f'VOC{year}/'),
                    filter_cfg=dict(filter_empty_gt=False),
                    pipeline=_base_.load_pipeline) for year in (2007, 2012)
            ])))
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type=dataset_type,
        data_root=data_root,
        ann_file='VOC2007/ImageSets/Main/test.txt',
        data_prefix=dict(sub_data_root='VOC2007/'),
        test_mode=True,
        pipeline=_base_.test_pipeline))
test_dataloader = val_dataloader

val_evaluator = dict(_delete_=True, type='VOCMetric', metric='mAP', eval_mode='11points')
test_evaluator = val_evaluator
