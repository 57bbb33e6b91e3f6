# As lsj-100e, for LocalVim. The reference's decay of rates over layers, 0.7, finds its patches and positions, which it
# nearly freezes, but none of its 20 blocks.
_base_ = './adamw_amp_lsj-100e.py'

stem_rate = 0.7**21
optim_wrapper = dict(
    constructor='DefaultOptimWrapperConstructor',
    optimizer=dict(weight_decay=0.05),
    paramwise_cfg=dict(
        _delete_=True,
        norm_decay_mult=0.0,
        custom_keys={
            '.stem.proj': dict(lr_mult=stem_rate),
            '.stem.pos_embed': dict(lr_mult=stem_rate, decay_mult=0.0)
        }))
