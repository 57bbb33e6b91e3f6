"""Which parameter decays, and by how much."""
from types import SimpleNamespace

import pytest
import torch
from mmdet.registry import OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.optim import build_optim_wrapper
from torch import nn

import mmmamba  # noqa: F401
from mmmamba.engine import ScaleWeightDecayHook
from mmmamba.errors import InputError


class Block(nn.Module):
    """Has a parameter of every kind that the models have."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.ln = nn.LayerNorm(4)
        self.dt_proj = nn.Linear(2, 4)
        self.A_logs = nn.Parameter(torch.zeros(4, 2))
        self.Ds = nn.Parameter(torch.ones(4))
        self.dt_projs_weight = nn.Parameter(torch.zeros(4, 2, 1))
        self.dt_projs_bias = nn.Parameter(torch.zeros(4, 2))
        self.gamma = nn.Parameter(torch.ones(4))
        self.project = nn.Parameter(torch.arange(4.0), requires_grad=False)


MEMBERS = {
    'weights': {'conv.weight', 'dt_proj.weight', 'dt_projs_weight'},
    'no_decay': {'bn.weight', 'ln.weight', 'dt_proj.bias', 'A_logs', 'Ds', 'dt_projs_bias', 'gamma'},
    'biases': {'conv.bias', 'bn.bias', 'ln.bias'},
}


def build(model, **optimizer):
    return build_optim_wrapper(model, dict(type='OptimWrapper', constructor='YOLOOptimWrapperConstructor',
                                           optimizer=optimizer))


@pytest.fixture(autouse=True)
def scope(mmdet_scope):
    """Names in configs are mmdet's."""


@pytest.mark.parametrize('optimizer', [dict(type='SGD', lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4),
                                       dict(type='AdamW', lr=1e-3, weight_decay=0.05)])
@pytest.mark.parametrize('prefix', ['', 'backbone.stages.0.'])
def test_groups_have_their_members_and_only_weights_decay(optimizer, prefix):
    block = Block()
    model = nn.ModuleDict({'backbone': nn.ModuleDict({'stages': nn.ModuleList([block])})}) if prefix else block
    wrapper = build(model, **optimizer)
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = wrapper.optimizer.param_groups
    found = {group['group_name']: {names[parameter] for parameter in group['params']} for group in groups}
    assert found == {group: {prefix + name for name in members} for group, members in MEMBERS.items()}
    decay = {group['group_name']: group['weight_decay'] for group in groups}
    assert decay == {'weights': optimizer['weight_decay'], 'no_decay': 0.0, 'biases': 0.0}


def test_frozen_parts_are_left_out_with_their_groups():
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1, bias=False))
    model[0].requires_grad_(False)
    groups = build(model, type='SGD', lr=0.1).optimizer.param_groups
    assert [group['group_name'] for group in groups] == ['weights']
    assert groups[0]['params'] == [model[1].weight]


def test_paramwise_cfg_is_refused():
    with pytest.raises(InputError, match='no paramwise_cfg'):
        OPTIM_WRAPPER_CONSTRUCTORS.build(dict(
            type='YOLOOptimWrapperConstructor', paramwise_cfg=dict(norm_decay_mult=0.0),
            optim_wrapper_cfg=dict(optimizer=dict(type='SGD', lr=0.1))))


@pytest.mark.parametrize(('batch_size', 'world_size', 'accumulate', 'factor'),
                         [(64, 8, 1, 8.0), (16, 1, 4, 1.0), (16, 1, 1, 0.25)])
def test_weight_decay_follows_the_images_of_a_step_and_is_scaled_once(batch_size, world_size, accumulate, factor):
    wrapper = build(Block(), type='SGD', lr=0.01, weight_decay=5e-4)
    wrapper._accumulative_counts = accumulate
    runner = SimpleNamespace(train_dataloader=SimpleNamespace(batch_size=batch_size), world_size=world_size,
                             optim_wrapper=wrapper, logger=SimpleNamespace(info=lambda message: None))
    for _ in range(2):  # the second time is a resumed run
        ScaleWeightDecayHook(base_batch_size=64).before_train(runner)
    decay = {group['group_name']: group['weight_decay'] for group in wrapper.optimizer.param_groups}
    assert decay == {'weights': pytest.approx(5e-4 * factor), 'no_decay': 0.0, 'biases': 0.0}
