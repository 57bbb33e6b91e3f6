# What ODMamba brings along into a config of mmdet's, under names of its own, as in the base.
_base_ = './coco_in_mmdet.py'

# Trained from scratch, hence statistics over the images of all processes. With one process this is plain batch norm.
sync_bn = dict(type='SyncBN', eps=1e-3, momentum=0.03)

# The scans' time scales, which decay would pull together, keep their values (as in Mamba YOLO's own recipe). `scales`
# are those of ATSS's and FCOS's levels: single numbers, which `flat_decay_mult` does not see.
undecayed = dict(
    A_logs=dict(decay_mult=0.0),
    Ds=dict(decay_mult=0.0),
    dt_projs_bias=dict(decay_mult=0.0),
    scales=dict(decay_mult=0.0))
adamw = dict(type='AdamW', lr=1e-4, weight_decay=0.05)
adamw_groups = dict(flat_decay_mult=0.0, custom_keys=undecayed)
