# COCO where the user has it, and this package, for configs that inherit mmdet's. Two bases may not set the same key,
# and mmdet's sets these: so each config takes them from here itself, by
#     globals().update(_base_.coco)
# after `_base_`, since the variables of a config are its keys. Lines after that change what it sets. Another folder is
# named by the environment variable COCO, or by `data_root` and `ann_file` in the data loaders and evaluators.
custom_imports = dict(imports=['mmmamba'])

coco_root = '{{$COCO:data/coco/}}'.rstrip('/')  # the environment variable COCO, else data/coco/
coco_dataloader = dict(dataset=dict(type='CheckedCocoDataset', data_root=coco_root))
coco_evaluator = dict(ann_file=coco_root + '/annotations/instances_val2017.json')
coco = dict(
    data_root=coco_root,
    train_dataloader=coco_dataloader,
    val_dataloader=coco_dataloader,
    test_dataloader=coco_dataloader,
    val_evaluator=coco_evaluator,
    test_evaluator=coco_evaluator)
