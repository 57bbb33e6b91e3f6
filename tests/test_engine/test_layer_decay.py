"""LayerDecayOptimWrapperConstructor: rates by layer, with mmengine's own options."""
from __future__ import annotations

import pytest
from mmdet.registry import MODELS
from mmengine.optim import build_optim_wrapper
from torch import nn

from mmmamba.engine import LayerDecayOptimWrapperConstructor
from mmmamba.errors import InputError

pytestmark = pytest.mark.usefixtures('mmdet_scope')


class Detector(nn.Module):

    def __init__(self, **backbone) -> None:
        super().__init__()
        self.backbone = MODELS.build(dict(backbone or dict(type='Vim', depth=2, width=16, img_size=32)))
        self.neck = MODELS.build(dict(type='SimpleFeaturePyramid', in_channels=16, out_channels=8))


def groups_of(model: nn.Module, **paramwise_cfg) -> dict[str, dict]:
    wrapper = build_optim_wrapper(model, dict(
        type='OptimWrapper',
        constructor='LayerDecayOptimWrapperConstructor',
        optimizer=dict(type='AdamW', lr=1e-2, weight_decay=0.1),
        paramwise_cfg=paramwise_cfg))
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {names[parameter]: group for group in wrapper.optimizer.param_groups for parameter in group['params']}


def test_rates_decay_to_the_patches_and_options_of_mmengine_hold():
    model = Detector()
    groups = groups_of(model, layer_decay_rate=0.5, norm_decay_mult=0.0, custom_keys={
        'pos_embed': dict(decay_mult=0.0), '.norm.': dict(decay_mult=0.0), 'in_proj': dict(lr_mult=3.0)})
    assert groups.keys() == dict(model.named_parameters()).keys()
    for name, group in groups.items():
        layer = 3
        if name.startswith('backbone.'):
            layer = 0 if name.startswith('backbone.stem.') else int(name.split('.')[2]) + 1
        rate = 1e-2 * 0.5**(3 - layer) * (3 if 'in_proj' in name else 1)
        assert group['lr'] == pytest.approx(rate), name
        without_decay = 'norm' in name or 'pos_embed' in name or name.startswith('neck.levels.0.1.')
        assert group['weight_decay'] == (0 if without_decay else 0.1), name


def test_frozen_parameters_are_left_out():
    model = Detector(type='Vim', depth=2, width=16, img_size=32, frozen_stages=1)
    groups = groups_of(model, layer_decay_rate=0.5)
    assert groups.keys() == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert groups['backbone.blocks.1.norm.weight']['lr'] == pytest.approx(0.5e-2)


@pytest.mark.parametrize('rate', [None, 0, -0.5, 1.5, 'a'])
def test_the_rate_is_between_0_and_1(rate):
    with pytest.raises(InputError, match='layer_decay_rate'):
        LayerDecayOptimWrapperConstructor(dict(optimizer=dict(type='AdamW', lr=1e-2)), dict(layer_decay_rate=rate))


def test_a_backbone_without_layers_is_refused():
    model = Detector(type='VMamba', arch=None, depths=(1, 1, 1, 1), widths=(8, 8, 8, 8))
    with pytest.raises(InputError, match='get_layer_depth'):
        groups_of(model, layer_decay_rate=0.5)
