"""LocalMamba against the reference implementation's outputs, through the weight converter; the converter."""
from __future__ import annotations

import json
import re
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from parity_weights import image, state_dict
from torch import Tensor, nn

from mmmamba.convert import SYSTEMS, dropped, local_mamba, system_of, vim, vmamba
from mmmamba.errors import InputError
from mmmamba.layers import SS2D, MambaBranch
from mmmamba.models.backbones import LocalVim, LocalVMamba
from mmmamba.ops.scan.orders import PATTERNS

ROOT = Path(__file__).parents[2]
DATA = ROOT / 'tests/data'
VMAMBA = {  # fixture: size of the image, arguments
    'local_vmamba_t': ((64, 64), {}),
    'local_vmamba_t_60x92': ((60, 92), {}),
    'local_vmamba_t_60x92_released': ((60, 92), dict(released_columns=True)),
}
VIM = {  # fixture: names and shapes, seed and size of the image, arguments
    'local_vim_t': ('local_vim_t', 0, (96, 96), {}),
    'local_vim_t_64x112': ('local_vim_t', 0, (64, 112), {}),
    'local_vim_t_rms_4outs': ('local_vim_t_rms_4outs', 1, (96, 96), dict(rms_norm=True, out_indices=(4, 9, 14, 19))),
}
TOLERANCE = {'reference': 1e-5, 'torch': 1e-4, None: 1e-4}
VIM_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-6}  # 20 blocks amplify float32's rounding


@cache
def _weights(name: str) -> dict[str, Tensor]:
    shapes = json.loads((DATA / f'{name}.shapes.json').read_text())
    return {key: torch.from_numpy(value) for key, value in state_dict(shapes).items()}


def reference(name: str) -> dict[str, Tensor]:
    return dict(_weights(name))


def of(part: str, converted: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(f'{part}.'): value for key, value in converted.items() if key.startswith(f'{part}.')}


def load(model: nn.Module, name: str, backend: str | None = None) -> nn.Module:
    model.load_state_dict(of('backbone', local_mamba(reference(name))), strict=True)
    for module in model.modules():
        if isinstance(module, (SS2D, MambaBranch)):
            module.scan_backend = backend
    return model.eval()


def check(outs: tuple[Tensor, ...], fixture: str, tolerance: float) -> None:
    expected = np.load(DATA / f'{fixture}.npz')
    assert len(outs) == len(expected.files)
    for index, out in enumerate(outs):
        exact = torch.from_numpy(expected[f'out{index}']).double()
        assert out.shape == exact.shape
        error = (out.double() - exact).norm() / exact.norm()
        assert error < tolerance, f'out{index}: {error:.2e}'


@torch.no_grad()
@pytest.mark.parametrize('fixture', VMAMBA)
@pytest.mark.parametrize('backend', TOLERANCE)
def test_local_vmamba_equals_reference(fixture, backend):
    size, settings = VMAMBA[fixture]
    model = load(LocalVMamba('t', **settings), 'local_vmamba_t', backend)
    check(model(torch.from_numpy(image(0, 1, 3, *size))), fixture, TOLERANCE[backend])


@torch.no_grad()
@pytest.mark.parametrize('fixture, dtype, backend', [
    *((fixture, dtype, None) for fixture in VIM for dtype in VIM_TOLERANCE),
    ('local_vim_t_64x112', torch.float32, 'torch'), ('local_vim_t_64x112', torch.float32, 'reference')])
def test_local_vim_equals_reference(fixture, dtype, backend):
    name, seed, size, settings = VIM[fixture]
    model = load(LocalVim('t', img_size=96, **settings), name, backend).to(dtype)
    check(model(torch.from_numpy(image(seed, 1, 3, *size)).to(dtype)), fixture, VIM_TOLERANCE[dtype])


@pytest.mark.parametrize('name, make', [
    ('local_vmamba_t', LocalVMamba),
    ('local_vim_t', LocalVim),
    ('local_vim_t_rms_4outs', lambda: LocalVim(rms_norm=True, out_indices=(4, 9, 14, 19))),
])
def test_every_tensor_is_used_once(name, make):
    source = {key: value + index for index, (key, value) in enumerate(reference(name).items())}
    converted = local_mamba(source)
    assert converted.keys() == {f'backbone.{key}' for key in make().state_dict()}
    used = sorted(value.flatten()[0].item() for value in converted.values())
    assert used == sorted(value.flatten()[0].item() for value in source.values())


def vmamba_classifier() -> dict[str, Tensor]:
    weights = {key: value for key, value in reference('local_vmamba_t').items() if not key.startswith('outnorm')}
    sizes = {'classifier.norm.weight': 768, 'classifier.norm.bias': 768, 'classifier.head.bias': 1000}
    return {**weights, **{key: torch.zeros(size) for key, size in sizes.items()}}


def vim_classifier(blocks: int = 20, class_token: bool = False) -> dict[str, Tensor]:
    """What was published: RMS norms, a last norm and a linear layer; the class token in the middle of its sequence."""
    weights = {
        key: value for key, value in reference('local_vim_t').items()
        if not re.match(r'outnorm|layers\.\d+\.norm\.bias', key)
        and (not key.startswith('layers.') or int(key.split('.')[1]) < blocks)}
    if class_token:
        positions, token = weights['pos_embed'], torch.full((1, 1, 192), 9.0)
        weights['pos_embed'] = torch.cat([positions[:, :18], token, positions[:, 18:]], dim=1)
        weights['cls_token'] = token
    return {**weights, 'norm_f.weight': torch.ones(192), 'head.weight': torch.zeros(10, 192),
            'head.bias': torch.zeros(10), 'rope.freqs_cos': torch.zeros(36, 192)}


@pytest.mark.parametrize('prefix', ['', 'model.', 'module.backbone.'])
@pytest.mark.parametrize('name, classifier, unused', [
    ('local_vmamba_t', vmamba_classifier, 3),
    ('local_vim_t', vim_classifier, 4),
    ('local_vim_t', partial(vim_classifier, class_token=True), 5),
], ids=['vmamba', 'vim', 'vim_class_token'])
def test_wrappers_are_taken_off_and_a_classifier_dropped(name, classifier, unused, prefix):
    wrapped = {prefix + key: value for key, value in classifier().items()}
    detector, converted = local_mamba(reference(name)), local_mamba(wrapped)
    only_detectors = re.compile(r'backbone\.(out_norms\.|blocks\.\d+\.norm\.bias)')
    assert converted.keys() == {key for key in detector if not only_detectors.match(key)}
    assert all(torch.equal(value, detector[key]) for key, value in converted.items())
    assert len(dropped(wrapped, 'local-mamba')) == unused
    assert system_of(wrapped) == 'local-mamba' and SYSTEMS['local-mamba'] is local_mamba


def test_a_local_vmamba_detector_keeps_its_neck_and_heads():
    others = {'neck.fpn_convs.0.conv.weight': torch.zeros(2, 2), 'rpn_head.in_proj.weight': torch.zeros(2, 2)}
    weights = reference('local_vmamba_t')
    converted = local_mamba({**{f'backbone.{key}': value for key, value in weights.items()}, **others})
    assert all(converted[key] is value for key, value in others.items())
    assert len(converted) == len(weights) + len(others)


def theirs(key: str) -> str:
    """The reference's name of a tensor of the neck and the heads of LocalVim's detector."""
    level = re.match(r'neck\.levels\.([0-3])\.(\d)\.(.*)', key)
    if level is None:
        return key.replace('.ln.', '.norm_layer.')
    number, layer, leaf = int(level[1]), int(level[2]), level[3]
    first = (4, 1, 0, 1)[number]  # of the two convolutions after the change of the stride
    if layer < first:
        return f'neck.fpn{number + 1}.{layer}.{leaf}'
    return f'neck.{("lateral_convs", "fpn_convs")[layer - first]}.{number}.{leaf.replace("norm.", "norm_layer.")}'


@pytest.mark.usefixtures('mmdet_scope')
def test_a_local_vim_detector_fills_the_config():
    cfg = Config.fromfile(
        ROOT / 'configs/local_mamba/mask-rcnn_local-vim-t_simple-pyramid_8xb8-lsj-100e_coco.py').model
    with torch.device('meta'):
        own = MODELS.build(cfg).state_dict()
    others = {key: torch.full(value.shape, float(index)) for index, (key, value) in enumerate(own.items())
              if not key.startswith('backbone.')}
    names = {theirs(key) for key in others}
    assert {'neck.fpn1.0.weight', 'neck.fpn1.1.bias', 'neck.fpn1.3.weight', 'neck.fpn2.0.bias',
            'neck.lateral_convs.3.conv.weight', 'neck.fpn_convs.0.norm_layer.weight', 'rpn_head.rpn_conv.1.conv.bias',
            'roi_head.bbox_head.shared_convs.3.norm_layer.bias'} <= names
    source = {f'backbone.{key}': value for key, value in reference('local_vim_t').items()}
    converted = local_mamba({**source, **{theirs(key): value for key, value in others.items()}})
    assert all(torch.equal(converted[key], value) for key, value in others.items())
    own['backbone.stem.pos_embed'] = own['backbone.stem.pos_embed'][..., :6, :6]
    assert {key: value.shape for key, value in converted.items()} == {key: value.shape for key, value in own.items()}


@pytest.mark.parametrize('name, change, message', [
    ('local_vmamba_t', lambda w: w.update({'layers.0.blocks.0.op.gain': torch.zeros(1)}), r'unknown .*op\.gain'),
    ('local_vmamba_t', lambda w: w.pop('outnorm0.weight') is w.update({'outnorm4.weight': torch.zeros(1)}),
     'unknown outnorm4'),
    ('local_vim_t', lambda w: w.update({'layers.0.mixer.D_4': torch.zeros(1)}), r'unknown layers\.0\.mixer\.D_4'),
    ('local_vim_t', lambda w: w.update(pos_embed=torch.zeros(1, 37, 192)), 'no square'),
    ('local_vim_t', lambda w: [w.pop(key) for key in list(w) if key.startswith('layers.3.')],
     r'blocks\.# it has the numbers'),
    ('local_vim_t', lambda w: w.update({'neck.fpn1.0.weight': torch.zeros(1), 'neck.fpn3.0.weight': torch.zeros(1)}),
     r'unknown fpn3\.0\.weight'),
])
def test_what_is_something_else_is_refused(name, change, message):
    weights = reference(name)
    change(weights)
    with pytest.raises(InputError, match=message):
        local_mamba({key if key.startswith('neck.') else f'backbone.{key}': value for key, value in weights.items()})


@pytest.mark.parametrize('name, other', [('local_vmamba_t', vmamba), ('local_vim_t', vim)])
def test_the_neighbours_refuse_it_and_name_it(name, other):
    with pytest.raises(InputError, match='looks like local-mamba'):
        other(reference(name))


@pytest.mark.parametrize('name, system', [('vmamba_t_s1l8', 'vmamba'), ('vim_ti', 'vim')])
def test_the_neighbours_are_refused_and_named(name, system):
    with pytest.raises(InputError, match=f'looks like {system}'):
        local_mamba(reference(name))


@pytest.fixture
def messages(monkeypatch):
    """What is logged to mmengine's current logger."""
    lines: list[str] = []
    monkeypatch.setattr('mmmamba.models.backbones.pretrained.print_log', lambda line, **_: lines.append(line))
    return lines


def pretrained(kind: type, path: Path, content: dict, **settings) -> nn.Module:
    torch.save({'state_dict': content}, path)
    model = kind(**settings, init_cfg=dict(type='Pretrained', checkpoint=str(path)))
    model.init_weights()
    return model


def test_a_local_vmamba_classifier_starts_a_backbone(tmp_path, messages):
    model = pretrained(LocalVMamba, tmp_path / 'local_vssm.ckpt', vmamba_classifier(), out_indices=(0, 1))
    expected = of('backbone', local_mamba(reference('local_vmamba_t')))
    for key, value in model.state_dict().items():
        assert key.startswith('out_norms.') or torch.equal(value, expected[key]), key
    assert len(messages) == 1 and 'classifier.norm.weight' in messages[0] and 'outputs start anew' in messages[0]


@pytest.mark.parametrize('class_token', [False, True])
@pytest.mark.parametrize('rms_norm', [False, True])
def test_a_local_vim_classifier_starts_a_backbone_with_either_norm(tmp_path, messages, class_token, rms_norm):
    """Where the backbone has layer norms, the classifier's RMS norms give their weights; biases are zero."""
    model = pretrained(LocalVim, tmp_path / 'local_vim.ckpt', vim_classifier(3, class_token),
                       depth=3, directions=[PATTERNS['cross']] * 3, img_size=128,
                       rms_norm=rms_norm)
    expected = of('backbone', local_mamba(reference('local_vim_t')))
    for key, value in model.state_dict().items():
        if key.startswith('blocks.') and key.endswith('.norm.bias') and '.gate.' not in key:
            assert not value.any()
        elif not key.startswith('out_norms.') and key != 'stem.pos_embed':
            assert torch.equal(value, expected[key]), key
    assert model.stem.pos_embed.shape == (1, 192, 8, 8) and 'resized from (6, 6) to (8, 8)' in messages[0]
    assert ('biases' in messages[0]) is not rms_norm


def test_other_weights_of_the_norms_are_not_done_without(tmp_path):
    weights = vim_classifier(2)
    del weights['layers.1.norm.weight']
    with pytest.raises(InputError, match=r'blocks\.1\.norm\.weight'):
        pretrained(LocalVim, tmp_path / 'local_vim.ckpt', weights, depth=2, directions=[PATTERNS['cross']] * 2)
