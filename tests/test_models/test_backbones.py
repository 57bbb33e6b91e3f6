"""The contract over every backbone: strides, channels, gradients, freezing, checkpointing, independence."""
from __future__ import annotations

import copy
import inspect

import pytest
import torch
from mmdet.registry import MODELS
from torch.nn.modules.batchnorm import _BatchNorm

from mmmamba.errors import InputError
from mmmamba.layers import (
    SS2D,
    ConvMlp,
    ConvNormAct,
    EVSSBlock,
    InvertedResidual,
    LayerNorm2d,
    LocalVimMixer,
    LSBlock,
    RGBlock,
    VisionClueMerge,
)
from mmmamba.ops.scan.orders import PATTERNS

BACKBONES = {
    'EfficientVMamba': dict(widths=(16, 24, 32, 40)),
    'LocalVMamba': dict(
        widths=(16, 24, 32, 40), depths=(1, 2, 1, 1),
        directions=[['h', 'v_flip', 'w2', 'w7'], *[['w7_flip', 'w2_flip', 'v', 'h_flip']] * 4]),
    'MambaVision': dict(widths=(8, 16, 32, 48), depths=(1, 2, 2, 2), window_sizes=(4, 2)),
    'ODMamba': dict(widths=(16, 24, 32, 40)),
    'VMamba': dict(widths=(16, 24, 32, 40), depths=(1, 2, 1, 1)),
    'YOLOv8CSPDarknet': dict(widths=(16, 24, 32, 40)),
}
PLAIN = {  # one stride and one width; a block is a stage
    'LocalVim': dict(
        depth=4, width=16, img_size=48,
        directions=[*[['h', 'v_flip', 'w2', 'w7']] * 3, ['w7_flip', 'w2_flip', 'v', 'h_flip']]),
    'Vim': dict(depth=4, width=16, img_size=48),
}
ALL = {**BACKBONES, **PLAIN}


def that_take(argument):
    return [name for name in ALL if argument in inspect.signature(MODELS.get(name)).parameters]


def build(name, **settings):
    torch.manual_seed(0)
    return MODELS.build(dict(type=name, **{**ALL[name], **settings}))


@pytest.mark.parametrize('name', BACKBONES)
@pytest.mark.parametrize('size', [(64, 96), (50, 77), (33, 32), (1, 1)])
@pytest.mark.parametrize('out_indices', [(0, 1, 2, 3), (1, 2, 3), (0, 2)])
def test_strides_and_channels(name, size, out_indices):
    model = build(name, out_indices=out_indices).eval()
    with torch.no_grad():
        outs = model(torch.rand(2, 3, *size))
    expected = [(2, BACKBONES[name]['widths'][i], *(-(-side // 2**(i + 2)) for side in size)) for i in out_indices]
    assert [tuple(out.shape) for out in outs] == expected


@pytest.mark.parametrize('name', PLAIN)
@pytest.mark.parametrize('size', [(64, 96), (50, 77), (33, 32), (1, 1)])
@pytest.mark.parametrize('out_indices', [None, (0, 1, 2, 3), (1, ), (0, 2)])
def test_stride_and_channels_of_plain_ones(name, size, out_indices):
    model = build(name, out_indices=out_indices).eval()
    with torch.no_grad():
        outs = model(torch.rand(2, 3, *size))
    assert len(model.blocks) == 1 + (out_indices or (3, ))[-1]
    shape = (2, PLAIN[name]['width'], *(-(-side // 16) for side in size))
    assert [tuple(out.shape) for out in outs] == [shape] * len(out_indices or (3, ))


@pytest.mark.parametrize('name', ALL)
@torch.no_grad()
def test_images_of_a_batch_do_not_see_each_other(name):
    model, x = build(name).eval(), torch.rand(3, 3, 50, 77)
    for together, *alone in zip(model(x), *(model(image[None]) for image in x)):
        torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('name', ALL)
def test_gradients_reach_every_parameter_and_nothing_else_is_made(name):
    for out_indices in ((0, 1, 2, 3), (0, 1)):
        model = build(name, out_indices=out_indices)
        sum(out.square().mean() for out in model(torch.rand(2, 3, 64, 64))).backward()
        for key, parameter in model.named_parameters():
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), key
            assert parameter.grad.abs().max() > 0, key


@pytest.mark.parametrize('name', ALL)
@pytest.mark.parametrize('frozen_stages', [-1, 0, 1, 4])
def test_freezing_survives_train(name, frozen_stages):
    model = build(name, frozen_stages=frozen_stages).train()
    frozen = [model.stem] if frozen_stages >= 0 else []
    for index in range(frozen_stages):
        frozen += model.stage_modules(index)
    expected = {id(p) for module in frozen for p in module.parameters()}
    assert {id(p) for p in model.parameters() if not p.requires_grad} == expected
    before = [{key: value.clone() for key, value in module.state_dict().items()} for module in frozen]
    model(torch.rand(2, 3, 64, 64))
    for module, state in zip(frozen, before):
        assert not any(child.training for child in module.modules())
        assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())
    trained = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.training]
    assert all(m.num_batches_tracked == 1 for m in trained)
    assert len(trained) == len([m for m in model.modules() if isinstance(m, _BatchNorm)]) - sum(
        isinstance(child, _BatchNorm) for module in frozen for child in module.modules())


def test_norm_eval_is_an_argument_of_those_with_batch_norms():
    with_batch_norms = [name for name in ALL if any(isinstance(m, _BatchNorm) for m in build(name).modules())]
    assert that_take('norm_eval') == with_batch_norms


@pytest.mark.parametrize('name', that_take('norm_eval'))
def test_norm_eval_keeps_the_statistics(name):
    model = build(name, norm_eval=True).train()
    before = {key: value.clone() for key, value in model.named_buffers()}
    model(torch.rand(2, 3, 64, 64))
    assert before and all(torch.equal(value, before[key]) for key, value in model.named_buffers())
    assert model.training


@pytest.mark.parametrize('name', that_take('with_cp'))
def test_with_cp_changes_neither_outputs_nor_gradients(name):
    x = torch.rand(2, 3, 64, 96)
    results = []
    for with_cp in (False, True):
        model = build(name, with_cp=with_cp)
        outs = model(x)
        sum(out.square().sum() for out in outs).backward()
        results.append([*outs, *(p.grad for p in model.parameters()), *model.buffers()])
    for plain, recomputed in zip(*results):
        torch.testing.assert_close(plain, recomputed, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('name', ALL)
def test_two_instances_are_independent(name):
    first, second = build(name), build(name)
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.fill_(7)
    assert not any((parameter == 7).all() for parameter in second.parameters())
    assert type(first).arch_settings == type(second).arch_settings
    with pytest.raises(TypeError):
        type(first).arch_settings['t'] = None


@pytest.mark.parametrize('name', ALL)
def test_bad_arguments_say_what_is_allowed(name):
    with pytest.raises(InputError, match='arch must be one of'):
        build(name, arch='huge')
    if name in PLAIN:
        with pytest.raises(InputError, match='needs both depth and width'):
            MODELS.build(dict(type=name, arch=None, width=8))
        with pytest.raises(InputError, match='depth and width must be 2 positive integers'):
            build(name, depth=0)
    else:
        with pytest.raises(InputError, match='needs both depths and widths'):
            MODELS.build(dict(type=name, arch=None, widths=(8, 8, 8, 8)))
        with pytest.raises(InputError, match='depths must be 4 positive integers'):
            build(name, depths=(1, 2, 2))
    for out_indices in ((), (4, ), (-1, ), (2, 1), (1, 1)):
        with pytest.raises(InputError, match='out_indices'):
            build(name, out_indices=out_indices)
    with pytest.raises(InputError, match='frozen_stages'):
        build(name, frozen_stages=5)


@pytest.mark.parametrize('name', ALL)
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_in_half_precision(name, dtype):
    torch.manual_seed(0)
    model, x = build(name).eval(), torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected, halves = model(x), copy.deepcopy(model).to(dtype)(x.to(dtype))
    for half, single in zip(halves, expected):
        assert half.dtype == dtype
        least = 1e-6 * single.numel()**0.5  # float16's steps near zero
        assert (half.float() - single).norm() < least + single.norm() * (1e-2 if dtype == torch.float16 else 6e-2)


@pytest.mark.parametrize('name', that_take('drop_path_rate'))
@pytest.mark.parametrize('rate', [-0.1, 1, 1.5])
def test_drop_path_rate_is_a_probability_below_one(name, rate):
    with pytest.raises(InputError, match='drop_path_rate must be in'):
        build(name, drop_path_rate=rate, out_indices=(0, ))


def test_od_mamba_arguments_have_their_effect():
    def kinds(model):
        return {type(module) for module in model.modules()}

    plain = build('ODMamba')
    assert LSBlock not in kinds(plain) and RGBlock in kinds(plain) and VisionClueMerge in kinds(plain)
    assert LSBlock in kinds(build('ODMamba', local_spatial=True))
    assert ConvMlp in kinds(build('ODMamba', mlp='conv'))
    assert len(build('ODMamba', num_ss2d=2).stages[0][0].ss2d) == 2
    convolved = build('ODMamba', downsample='conv')
    assert VisionClueMerge not in kinds(convolved)
    assert isinstance(convolved.downsamples[0], ConvNormAct)
    assert any(isinstance(m, torch.nn.SiLU) for m in build('ODMamba', gate_act='silu').stages[0][0].mlp.modules())
    assert (build('ODMamba', ssm_init='mamba').stages[0][0].ss2d[0].A_logs != 0).any()
    rates = [block.drop_path.drop_prob for stage in build('ODMamba', drop_path_rate=0.3).stages for block in stage]
    assert rates == pytest.approx([0, 0.06, 0.12, 0.18, 0.24, 0.3])
    grouped = build('ODMamba', norm_cfg=dict(type='GN', num_groups=4))
    assert not any(isinstance(m, _BatchNorm) for m in grouped.modules())
    assert build('ODMamba', in_channels=4)(torch.rand(2, 4, 32, 32))
    with pytest.raises(InputError, match='clue_merge'):
        build('ODMamba', downsample='pool')


@pytest.mark.parametrize('name', that_take('directions'))
def test_directions_are_those_of_all_scans_or_up_to_the_last_output(name):
    """So that what a search finds, which sees the scans that are made, fits the config that was searched."""
    def directions_of(model):
        return [module.directions for module in model.modules() if isinstance(module, (SS2D, LocalVimMixer))]

    whole = len(directions_of(build(name)))
    made = len(directions_of(build(name, out_indices=(1, ))))
    assert made < whole
    found = [('w2', 'v', 'h', 'w7')] * (made - 1) + [('w7', 'h', 'w2', 'v')]
    unused = [('h', )] * (whole - made)
    assert directions_of(build(name, directions=found, out_indices=(1, ))) == found
    assert directions_of(build(name, directions=found + unused, out_indices=(1, ))) == found
    with pytest.raises(InputError, match=f'each of the {whole} scans, got {made - 1}'):
        build(name, directions=found[1:], out_indices=(1, ))


@pytest.mark.parametrize('settings, absent', [
    (dict(num_ss2d=0), {SS2D}),
    (dict(mlp=None), {RGBlock}),
    (dict(num_ss2d=0, mlp=None, downsample='conv'), {SS2D, RGBlock, LayerNorm2d, VisionClueMerge}),
])
def test_od_mamba_without_scans_or_mlps_keeps_the_contract(settings, absent):
    model = build('ODMamba', **settings, out_indices=(0, 1, 2, 3))
    assert absent.isdisjoint(type(module) for module in model.modules())
    x, channels = torch.rand(2, 3, 50, 77), BACKBONES['ODMamba']['widths']
    outs = model(x)
    assert [out.shape for out in outs] == [(2, c, -(-50 // 2**i), -(-77 // 2**i)) for i, c in enumerate(channels, 2)]
    sum(out.square().mean() for out in outs).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())

    recomputed = build('ODMamba', **settings, out_indices=(0, 1, 2, 3), with_cp=True)
    for out, expected in zip(recomputed(x), outs):
        torch.testing.assert_close(out, expected)
    model.eval()
    with torch.no_grad():  # norms and sums inside the branches
        inferred = model(x)
    for out, expected in zip(inferred, model(x)):
        torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)


def test_efficient_vmamba_arguments_have_their_effect():
    plain = build('EfficientVMamba')
    assert [{type(block) for block in stage} for stage in plain.stages] == [{EVSSBlock}] * 2 + [{InvertedResidual}] * 2
    assert [len(stage) for stage in build('EfficientVMamba', depths=(1, 3, 2, 1)).stages] == [1, 3, 2, 1]
    assert {block.ss2d.directions for stage in plain.stages[:2] for block in stage} == {PATTERNS['atrous']}
    rates = [block.drop_path.drop_prob for stage in build('EfficientVMamba', drop_path_rate=0.9).stages
             for block in stage]
    assert rates == pytest.approx([0.1 * index for index in range(10)])
    grouped = build('EfficientVMamba', norm_cfg=dict(type='GN', num_groups=4))
    assert not any(isinstance(m, _BatchNorm) for m in grouped.modules())
    assert build('EfficientVMamba', in_channels=4)(torch.rand(2, 4, 32, 32))


def test_vmamba_arguments_have_their_effect():
    plain = build('VMamba')
    block = plain.stages[0][0]
    assert (block.ss2d.A_logs == 0).all() and block.ss2d.A_logs.shape == (4 * 16, 1)
    assert (block.ss2d.conv2d.in_channels, block.mlp.fc1.out_channels) == (16, 64)
    assert build('VMamba', ssm_ratio=2).stages[0][0].ss2d.conv2d.in_channels == 32
    assert build('VMamba', arch='t_s2l5').stages[0][0].ss2d.conv2d.in_channels == 32
    assert build('VMamba', arch='t_s2l5', ssm_ratio=1).stages[0][0].ss2d.conv2d.in_channels == 16
    assert build('VMamba', d_state=4).stages[0][0].ss2d.A_logs.shape == (4 * 16, 4)
    assert build('VMamba', mlp_ratio=2).stages[0][0].mlp.fc1.out_channels == 32
    steps = {name: build('VMamba', ssm_init=name).stages[0][0].ss2d.dt_projs_bias for name in ('mamba', 'mamba_yolo')}
    assert steps['mamba'].max() < 0 < steps['mamba_yolo'].max()  # steps of at most 0.1; of order 1
    rates = [block.drop_path.drop_prob for stage in build('VMamba', drop_path_rate=0.2).stages for block in stage]
    assert rates == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])
    assert build('VMamba', in_channels=4)(torch.rand(2, 4, 32, 32))
    for settings in (dict(ssm_ratio=0.01), dict(mlp_ratio=0), dict(widths=(1, 2, 4, 8))):
        with pytest.raises(InputError, match='must leave a channel everywhere'):
            build('VMamba', **settings)
    with pytest.raises(InputError, match='d_state must be 1 positive integers'):
        build('VMamba', d_state=1.5)


@pytest.mark.parametrize('name', ALL)
def test_pretrained_weights_load_through_init_cfg(name, tmp_path):
    source = build(name)
    torch.save(dict(state_dict=source.state_dict()), tmp_path / 'weights.pth')
    torch.manual_seed(1)
    target = MODELS.build(
        dict(type=name, **ALL[name],
             init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'weights.pth'))))
    target.init_weights()
    for key, value in source.state_dict().items():
        assert torch.equal(value, target.state_dict()[key]), key
