# What EfficientVMamba brings along into a config of mmdet's: Swin's 1x recipe in mixed precision. No two bases may set
# the same key, so these have names of their own, and each config puts them where they belong.
custom_imports = dict(imports=['mmmamba'])

coco_root = '{{$COCO:data/coco/}}'  # the environment variable COCO, else data/coco/
coco_dataloader = dict(dataset=dict(data_root=coco_root))
coco_evaluator = dict(ann_file=coco_root + '/annotations/instances_val2017.json')

undecayed = ('norm', 'A_logs', 'Ds', 'dt_projs_bias')
amp_adamw = dict(
    _delete_=True,
    type='AutocastOptimWrapper',
    dtype='bfloat16',
    optimizer=dict(type='AdamW', lr=0.0001, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(custom_keys={name: dict(decay_mult=0.0) for name in undecayed}))
swin_1x = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(type='MultiStepLR', begin=0, end=12, by_epoch=True, milestones=[8, 11], gamma=0.1),
]
