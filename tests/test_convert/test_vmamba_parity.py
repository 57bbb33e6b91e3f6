"""VMamba against the reference implementation's outputs, through the weight converter, and the converter's names."""
from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from parity_weights import image, state_dict
from torch import Tensor

import mmmamba  # noqa: F401  (registers the models)
from mmmamba.convert import SYSTEMS, dropped, mamba_yolo, system_of, vmamba
from mmmamba.errors import InputError
from mmmamba.layers import SS2D
from mmmamba.models.backbones import VMamba

DATA = Path(__file__).parents[1] / 'data'
TOLERANCE = {'reference': 1e-5, None: 1e-4}
OLDER = (
    (r'(blocks\.\d+)\.norm\.', r'\1.ln_1.'),
    (r'\.op\.', '.self_attention.'),
    (r'(x_proj|dt_projs)\.weight', r'\1_weight'),
    (r'patch_embed\.0', 'patch_embed.proj'),
    (r'patch_embed\.2', 'patch_embed.norm'),
    (r'^classifier\.', ''),
)
HEAD = {'classifier.norm.weight': 768, 'classifier.norm.bias': 768, 'classifier.head.bias': 1000}


def _weights() -> dict[str, Tensor]:
    shapes = json.loads((DATA / 'vmamba_t_s1l8.shapes.json').read_text())
    return {name: torch.from_numpy(value) for name, value in state_dict(shapes).items()}


def _classifier() -> dict[str, Tensor]:
    backbone = {key: value for key, value in _weights().items() if not key.startswith('outnorm')}
    return {**backbone, **{key: torch.zeros(size) for key, size in HEAD.items()}}


def _bare(converted: dict[str, Tensor]) -> dict[str, Tensor]:
    assert all(key.startswith('backbone.') for key in converted)
    return {key.removeprefix('backbone.'): value for key, value in converted.items()}


def _older(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same weights as earlier public code spelled and shaped them."""
    older = {}
    for key, value in weights.items():
        for pattern, spelling in OLDER:
            key = re.sub(pattern, spelling, key)
        if key.endswith(('x_proj_weight', 'dt_projs_weight')):
            value = value.unflatten(0, (4, -1))
        elif key.endswith(('in_proj.weight', 'out_proj.weight')):
            value = value[:, :, None, None]
        older[key] = value
    return older


@torch.no_grad()
@pytest.mark.parametrize('backend', TOLERANCE)
def test_vmamba_equals_reference(backend):
    model = VMamba('t').eval()
    model.load_state_dict(_bare(vmamba(_weights())), strict=True)
    for module in model.modules():
        if isinstance(module, SS2D):
            module.scan_backend = backend
    expected = np.load(DATA / 'vmamba_t_s1l8.npz')
    outs = model(torch.from_numpy(image(0, 1, 3, 64, 96)))
    assert len(outs) == len(expected.files) == 4
    for index, out in enumerate(outs):
        reference = torch.from_numpy(expected[f'out{index}']).double()
        assert out.shape == reference.shape
        error = (out.double() - reference).norm() / reference.norm()
        assert error < TOLERANCE[backend], f'out{index}: {error:.2e}'


@torch.no_grad()
def test_backends_agree_on_odd_sizes():
    model = VMamba('t').eval()
    model.load_state_dict(_bare(vmamba(_weights())), strict=True)
    x = torch.from_numpy(image(1, 1, 3, 61, 97))
    outs = model(x)
    for expected, out in zip(model.double()(x.double()), outs):
        assert (out.double() - expected).norm() / expected.norm() < 1e-5


def test_every_tensor_is_used_once():
    source = {key: value + index for index, (key, value) in enumerate(_weights().items())}
    converted = _bare(vmamba(source))
    assert converted.keys() == VMamba('t').state_dict().keys()
    used = sorted(value.flatten()[0].item() for value in converted.values())
    assert used == sorted(value.flatten()[0].item() for value in source.values())


@pytest.mark.parametrize('prefix', ['', 'module.', 'model.', 'backbone.', 'module.backbone.'])
def test_older_spellings_and_wrappers_give_the_same(prefix):
    source = _classifier()
    older = {prefix + key: value for key, value in _older(source).items()}
    assert {f'{prefix}norm.weight', f'{prefix}layers.0.blocks.0.self_attention.x_proj_weight'} <= older.keys()
    expected, got = vmamba(source), vmamba(older)
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[key], expected[key]) for key in expected)
    assert len(dropped(older, 'vmamba')) == len(HEAD)
    assert system_of(source) == system_of(older) == 'vmamba'


def test_a_detector_keeps_its_neck_and_heads():
    others = {'neck.fpn_convs.0.conv.weight': torch.zeros(2, 2), 'rpn_head.in_proj.weight': torch.zeros(2, 2)}
    converted = vmamba({**{f'backbone.{key}': value for key, value in _weights().items()}, **others})
    assert all(converted[key] is value for key, value in others.items())
    assert {key for key in converted if not key.startswith('backbone.')} == others.keys()
    assert len(converted) == len(_weights()) + len(others)


def test_what_is_something_else_is_refused():
    source = _weights()
    with pytest.raises(InputError, match='looks like vmamba'):
        mamba_yolo(source)
    with pytest.raises(InputError, match='looks like yolov8'):
        vmamba({'model.2.m.0.cv1.conv.weight': torch.zeros(1)})
    vanilla = {**_older(source), 'layers.0.downsample.reduction.weight': torch.zeros(1)}
    with pytest.raises(InputError, match=r'unknown layers\.0\.downsample\.reduction\.weight'):
        vmamba(vanilla)
    with pytest.raises(InputError, match='under two names'):
        vmamba({**source, **_older(source)})
    with pytest.raises(InputError, match='unknown layers.0.blocks.0.op.in_proj.gain'):
        vmamba({**source, 'layers.0.blocks.0.op.in_proj.gain': torch.zeros(1)})
    assert SYSTEMS['vmamba'] is vmamba


@pytest.fixture
def messages(monkeypatch):
    """What is logged to mmengine's current logger."""
    lines: list[str] = []
    monkeypatch.setattr('mmmamba.models.backbones.pretrained.print_log', lambda line, **_: lines.append(line))
    return lines


def test_a_reference_classifier_loads_through_init_cfg(tmp_path, messages):
    torch.save({'model': _classifier(), 'epoch': 264}, tmp_path / 'vssm1_tiny.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'vssm1_tiny.pth'))
    model = VMamba('t', out_indices=(0, 1), init_cfg=init_cfg)
    model.init_weights()
    expected = _bare(vmamba(_weights()))
    for key, value in model.state_dict().items():
        assert key.startswith('out_norms.') or torch.equal(value, expected[key]), key
    assert len(messages) == 1 and 'classifier.norm.weight' in messages[0] and 'outputs start anew' in messages[0]


def test_a_classifier_of_another_size_is_refused_with_names_of_both_sides(tmp_path):
    torch.save({'model': _classifier()}, tmp_path / 'vssm1_tiny.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'vssm1_tiny.pth'))
    model = VMamba('t', depths=(2, 2, 5, 3), init_cfg=init_cfg)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(InputError, match=r'does not fit this VMamba') as error:
        model.init_weights()
    assert 'stages.2.5.norm1.weight' in str(error.value) and 'stages.3.2.norm1.weight' in str(error.value)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
