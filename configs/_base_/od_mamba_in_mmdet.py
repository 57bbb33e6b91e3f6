# What ODMamba brings along into a config of mmdet's. No two bases may set the same key, so these have names of their
# own, and each config puts them where they belong.
custom_imports = dict(imports=['mmmamba'])

coco_root = '{{$COCO:data/coco/}}'  # the environment variable COCO, else data/coco/
coco_dataloader = dict(dataset=dict(data_root=coco_root))
coco_evaluator = dict(ann_file=coco_root + '/annotations/instances_val2017.json')

# Trained from scratch, hence statistics over the images of all processes. With one process this is plain batch norm.
sync_bn = dict(type='SyncBN', eps=1e-3, momentum=0.03)

# The scans' time scales, which decay would pull together, keep their values (as in Mamba YOLO's own recipe).
undecayed = dict(A_logs=dict(decay_mult=0.0), Ds=dict(decay_mult=0.0), dt_projs_bias=dict(decay_mult=0.0))
adamw = dict(type='AdamW', lr=1e-4, weight_decay=0.05)
adamw_groups = dict(flat_decay_mult=0.0, custom_keys=undecayed)
