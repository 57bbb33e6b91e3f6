# The baseline: Mamba YOLO's head, assigner and losses under YOLOv8's own backbone and neck.
_base_ = './mamba-yolo_t.py'

model = dict(
    backbone=dict(_delete_=True, type='YOLOv8CSPDarknet', arch='n'),
    neck=dict(_delete_=True, type='YOLOv8PAFPN', in_channels=[64, 128, 256], num_blocks=1))
