# COCO where the user has it, and this package, for configs that inherit mmdet's. No two bases may set the same key, so
# these have names of their own, and each config puts them where they belong.
custom_imports = dict(imports=['mmmamba'])

coco_root = '{{$COCO:data/coco/}}'.rstrip('/')  # the environment variable COCO, else data/coco/
coco_dataloader = dict(dataset=dict(type='CheckedCocoDataset', data_root=coco_root))
coco_evaluator = dict(ann_file=coco_root + '/annotations/instances_val2017.json')
