# As 3x, in a third of the epochs.
_base_ = './adamw_amp_3x.py'

train_cfg = dict(max_epochs=12)

param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(type='MultiStepLR', begin=0, end=12, by_epoch=True, milestones=[8, 11], gamma=0.1),
]
