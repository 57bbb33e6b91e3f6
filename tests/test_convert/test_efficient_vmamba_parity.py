"""EfficientVMamba: the key map, and the outputs of the reference implementation on converted weights."""
from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from parity_weights import image, state_dict
from torch import nn

import mmmamba  # noqa: F401  (registers the models)
from mmmamba.convert import SYSTEMS, dropped
from mmmamba.errors import InputError
from mmmamba.layers import SS2D
from mmmamba.models.backbones import pretrained

DATA = Path(__file__).parents[1] / 'data'
TOOL = Path(__file__).parents[2] / 'tools/model_converters/convert_weights.py'
TOLERANCE = {'reference': 1e-5, None: 1e-4}
SYSTEM = 'efficient-vmamba'
INPUTS = {'efficient_vmamba_t': (1, 3, 64, 96), 'efficient_vmamba_t_odd': (1, 3, 60, 92)}


def reference_weights(name: str = 'efficient_vmamba_t') -> dict[str, torch.Tensor]:
    shapes = json.loads((DATA / f'{name}.shapes.json').read_text())
    return {key: torch.from_numpy(value) for key, value in state_dict(shapes).items()}


def loaded(name: str) -> nn.Module:
    model = MODELS.build(dict(type='EfficientVMamba', arch='t')).eval()
    weights = SYSTEMS[SYSTEM](reference_weights(name))
    model.load_state_dict({key.removeprefix('backbone.'): value for key, value in weights.items()}, strict=True)
    return model


@torch.no_grad()
@pytest.mark.parametrize('backend', TOLERANCE)
@pytest.mark.parametrize('name', INPUTS)
def test_equals_reference(name, backend):
    model = loaded(name)
    for module in model.modules():
        if isinstance(module, SS2D):
            module.scan_backend = backend
    outputs = model(torch.from_numpy(image(0, *INPUTS[name])))
    expected = np.load(DATA / f'{name}.npz')
    assert [f'out{i}' for i in range(len(outputs))] == sorted(expected)
    for i, output in enumerate(outputs):
        reference = torch.from_numpy(expected[f'out{i}'])
        assert output.shape == reference.shape
        error = ((output.double() - reference.double()).norm() / reference.double().norm()).item()
        assert error < TOLERANCE[backend], f'out{i}: {error:.2e}'


HEAD = ('norm.weight', 'norm.bias', 'head.weight', 'head.bias')


def classifier(prefix: str = '', head: str = '') -> dict[str, torch.Tensor]:
    """A classifier of the reference: no norms of the outputs, but a head."""
    weights = {key: value for key, value in reference_weights().items() if not key.startswith('outnorm')}
    weights.update({head + key: torch.zeros(8) for key in HEAD})
    return {prefix + key: value for key, value in weights.items()}


@pytest.mark.parametrize('depths', [(2, 2, 4, 2), (2, 2, 9, 2), (1, 3, 1, 2)])
def test_every_tensor_is_used_and_none_made_up(depths):
    source = list(reference_keys(depths))
    model = MODELS.build(dict(type='EfficientVMamba', arch=None, depths=depths, widths=(8, 8, 8, 8)))
    converted = SYSTEMS[SYSTEM]({key: torch.tensor([float(i)]) for i, key in enumerate(source)})
    assert converted.keys() == {f'backbone.{key}' for key in model.state_dict()}
    assert sorted(tensor.item() for tensor in converted.values()) == list(range(len(source)))


def reference_keys(depths):
    """Names that the reference gives to other depths: those of T, its first blocks repeated."""
    for key in reference_weights():
        match = re.match(r'layers\.(\d)\.(blocks\.\d+|\d+|downsample)\.(.*)', key)
        if match is None or match[2] == 'downsample':
            yield key
            continue
        stage, member, leaf = int(match[1]), match[2], match[3]
        if member in ('blocks.0', '1'):
            first = int(member[-1])
            repeated = [member[:-1] + str(first + index) for index in range(depths[stage])]
            yield from (f'layers.{stage}.{name}.{leaf}' for name in repeated)
        elif leaf.startswith(('norm.', 'reduction.')) and stage == 2:  # the merging, one place behind the blocks
            yield f'layers.2.{depths[2] + 2}.{leaf}'


def test_older_names_are_known():
    older = {'patch_embed.0': 'patch_embed.proj', 'patch_embed.2': 'patch_embed.norm'}
    weights = reference_weights()
    renamed = {}
    for key, value in weights.items():
        for new, old in older.items():
            key = key.replace(new, old)
        key = re.sub(r'(blocks\.\d+)\.norm\.', r'\1.ln_1.', key)
        renamed[re.sub(r'(blocks\.\d+)\.op\.', r'\1.self_attention.', key)] = value
    assert len(renamed.keys() - weights.keys()) > len(older)
    expected, got = SYSTEMS[SYSTEM](weights), SYSTEMS[SYSTEM](renamed)
    assert got.keys() == expected.keys() and all(torch.equal(got[key], expected[key]) for key in expected)


@pytest.mark.parametrize('prefix', ['', 'module.', 'module.module.', 'model.'])
@pytest.mark.parametrize('head', ['', 'classifier.'])
def test_of_a_classifier_the_head_is_dropped(prefix, head):
    source = classifier(prefix, head)
    assert dropped(source, SYSTEM) == [prefix + head + key for key in HEAD]
    expected = {key for key in SYSTEMS[SYSTEM](reference_weights()) if 'out_norms' not in key}
    assert SYSTEMS[SYSTEM](source).keys() == expected


def test_of_a_detector_neck_and_heads_keep_their_names():
    others = {'neck.lateral_convs.0.conv.weight': torch.ones(2, 3), 'rpn_head.rpn_cls.weight': torch.ones(2, 3)}
    source = {**{f'backbone.{key}': value for key, value in reference_weights().items()}, **others}
    assert dropped(source, SYSTEM) == []
    converted = SYSTEMS[SYSTEM](source)
    assert converted.keys() == SYSTEMS[SYSTEM](reference_weights()).keys() | others.keys()
    assert all(converted[key] is value for key, value in others.items())


def test_another_system_is_named():
    message = 'no efficient-vmamba state dict: unknown patch_embed.conv_down.0.weight; it looks like mamba-vision'
    with pytest.raises(InputError, match=re.escape(message)):
        SYSTEMS[SYSTEM]({'patch_embed.conv_down.0.weight': torch.zeros(1)})
    with pytest.raises(InputError, match='it looks like efficient-vmamba'):
        SYSTEMS['mamba-yolo'](reference_weights())


def built_with(checkpoint: Path, **settings) -> nn.Module:
    model = MODELS.build(dict(type='EfficientVMamba', init_cfg=dict(type='Pretrained', checkpoint=str(checkpoint)),
                              **settings))
    model.init_weights()
    return model


def test_a_file_of_the_reference_loads_through_init_cfg(tmp_path, monkeypatch):
    logged = []
    monkeypatch.setattr(pretrained, 'print_log', lambda message, **_: logged.append(message))
    torch.save({'state_dict': classifier('module.module.')}, tmp_path / 'tiny.ckpt')
    model = built_with(tmp_path / 'tiny.ckpt', arch='t')
    expected = loaded('efficient_vmamba_t').state_dict()
    for key, value in model.state_dict().items():
        assert torch.equal(value, expected[key]) or key.startswith('out_norms.'), key
    message, = logged
    assert '4 not used: module.module.norm.weight, module.module.norm.bias, module.module.head.weight' in message
    assert 'the norms of the outputs start anew' in message


def test_a_converted_file_loads_through_init_cfg(tmp_path, run_script, capsys):
    torch.save({'state_dict': classifier()}, tmp_path / 'tiny.ckpt')
    assert run_script(TOOL, SYSTEM, tmp_path / 'tiny.ckpt', tmp_path / 'tiny.pth') == 0
    printed = capsys.readouterr().out
    assert 'from its state_dict; without the 4 of the classifier: norm.weight, norm.bias, head.weight, …' in printed
    models = [built_with(tmp_path / name, arch='t', out_indices=(1, 2)) for name in ('tiny.ckpt', 'tiny.pth')]
    for ours, theirs in zip(*(model.state_dict().values() for model in models)):
        assert torch.equal(ours, theirs)


def test_a_file_of_another_size_is_refused(tmp_path):
    torch.save({'model': classifier()}, tmp_path / 'tiny.pth')
    with pytest.raises(InputError, match=r'tiny\.pth does not fit this Eff.*have another shape \(stem\.'):
        built_with(tmp_path / 'tiny.pth', arch='s')
    with pytest.raises(InputError, match=r'weights are missing \(stages\.2\.4\.expand\.conv\.weight'):
        built_with(tmp_path / 'tiny.pth', arch='t', depths=(2, 2, 9, 2))
