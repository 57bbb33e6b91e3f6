"""Vim and its pyramid against the reference implementation's outputs, through the weight converter; the converter."""
from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from parity_weights import image, state_dict
from torch import Tensor, nn

from mmmamba.convert import SYSTEMS, dropped, mamba_vision, system_of, vim
from mmmamba.errors import InputError
from mmmamba.layers import MambaBranch
from mmmamba.layers.vim import resize_bicubic
from mmmamba.models.backbones import Vim
from mmmamba.models.necks import SimpleFeaturePyramid

ROOT = Path(__file__).parents[2]
DATA = ROOT / 'tests/data'
FIXTURES = {  # seed and size of the image, arguments, float64's tolerance
    'vim_ti': (0, (96, 96), {}, 1e-6),
    'vim_ti_64x96': (0, (64, 96), {}, 5e-6),  # its rotary tables were rounded to float32
    'vim_ti_norope_64x96': (1, (64, 96), dict(rope=False), 1e-6),
    'vim_ti_nodivide_64x96': (1, (64, 96), dict(halve=False), 5e-6),
}
TOLERANCE = 3e-5  # 24 blocks amplify float32's rounding


@cache
def _weights() -> dict[str, Tensor]:
    shapes = json.loads((DATA / 'vim_ti.shapes.json').read_text())
    return {key: torch.from_numpy(value) for key, value in state_dict(shapes).items()}


def reference(with_pyramid: bool = True) -> dict[str, Tensor]:
    return {key: value for key, value in _weights().items() if with_pyramid or not key.startswith('simfp_')}


def classifier(blocks: int = 24) -> dict[str, Tensor]:
    """What was published: a class token, whose position is in the middle, a last norm and a linear layer."""
    weights = {key: value for key, value in reference(with_pyramid=False).items()
               if not key.startswith('layers.') or int(key.split('.')[1]) < blocks}
    positions = weights['pos_embed']
    token = torch.full((1, 1, 192), 9.0)
    weights['pos_embed'] = torch.cat([positions[:, :98], token, positions[:, 98:]], dim=1)
    return {**weights, 'cls_token': token, 'norm_f.weight': torch.ones(192), 'head.weight': torch.zeros(10, 192),
            'head.bias': torch.zeros(10)}


def of(part: str, converted: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(f'{part}.'): value for key, value in converted.items() if key.startswith(f'{part}.')}


def backbone(**settings) -> Vim:
    model = Vim(img_size=224, **settings).eval()
    model.load_state_dict(of('backbone', vim(reference())), strict=True)
    return model


def error(got: Tensor, expected: np.ndarray) -> float:
    exact = torch.from_numpy(expected).double()
    assert got.shape == exact.shape
    return float((got.double() - exact).norm() / exact.norm())


@torch.no_grad()
@pytest.mark.parametrize('name, dtype, backend', [
    *((name, dtype, None) for name in FIXTURES for dtype in (torch.float32, torch.float64)),
    ('vim_ti_64x96', torch.float32, 'torch'), ('vim_ti_64x96', torch.float32, 'reference')])
def test_equals_reference(name, dtype, backend):
    seed, size, settings, precise = FIXTURES[name]
    model, first = backbone(**settings), []
    for module in model.modules():
        if isinstance(module, MambaBranch):
            module.scan_backend = backend
    model.blocks[0].register_forward_hook(lambda _, inputs, outputs: first.extend(outputs))
    pyramid = SimpleFeaturePyramid(192)
    pyramid.load_state_dict(of('neck', vim(reference())), strict=True)
    outs = model.to(dtype)(torch.from_numpy(image(seed, 1, 3, *size)).to(dtype))
    got = {
        'pos_embed_resized': resize_bicubic(model.stem.pos_embed, *(side // 16 for side in size)).flatten(2).mT,
        **{f'block0_{part}': tokens.flatten(1, 2) for part, tokens in zip(('hidden', 'residual'), first)},
        'out': outs[0],
        **{f'p{level}': out for level, out in enumerate(pyramid.to(dtype)(outs), 2)},
    }
    expected = np.load(DATA / f'{name}.npz')
    assert {'pos_embed_resized', 'block0_hidden', 'block0_residual', 'out'} <= set(expected.files) <= got.keys()
    for array in expected.files:
        tolerance = TOLERANCE if dtype == torch.float32 else precise
        assert error(got[array], expected[array]) < tolerance, array


def test_every_tensor_is_used_once():
    numbered = {key: value + index for index, (key, value) in enumerate(reference().items())}
    converted = vim(numbered)
    assert len(converted) == len(numbered)
    assert of('backbone', converted).keys() == Vim().state_dict().keys()
    assert of('neck', converted).keys() == SimpleFeaturePyramid(192).state_dict().keys()
    used = sorted(value.flatten()[0].item() for value in converted.values())
    assert used == sorted(value.flatten()[0].item() for value in numbered.values())


@pytest.mark.parametrize('prefix', ['', 'module.', 'model.', 'backbone.', 'backbone.net.', 'module.backbone.net.'])
def test_wrappers_class_token_and_tables_are_dropped(prefix):
    tables = {f'rope.freqs_{name}': torch.zeros(196, 192) for name in ('cos', 'sin')}
    wrapped = {prefix + key: value for key, value in {**classifier(), **tables}.items()}
    expected, got = vim(reference(with_pyramid=False)), vim(wrapped)
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[key], expected[key]) for key in expected)
    assert len(dropped(wrapped, 'vim')) == 6
    assert system_of(wrapped) == 'vim' and SYSTEMS['vim'] is vim


HEADS = {  # Detectron2's names of modules to mmdet's
    **{f'proposal_generator.rpn_head.conv.conv{i}': f'rpn_head.rpn_conv.{i}.conv' for i in range(2)},
    'proposal_generator.rpn_head.objectness_logits': 'rpn_head.rpn_cls',
    'proposal_generator.rpn_head.anchor_deltas': 'rpn_head.rpn_reg',
    'roi_heads.mask_head.deconv': 'roi_head.mask_head.0.upsample',
    'roi_heads.mask_head.predictor': 'roi_head.mask_head.0.conv_logits',
}
for i in range(4):
    HEADS[f'roi_heads.mask_head.mask_fcn{i + 1}'] = f'roi_head.mask_head.0.convs.{i}.conv'
    HEADS[f'roi_heads.mask_head.mask_fcn{i + 1}.norm'] = f'roi_head.mask_head.0.convs.{i}.ln'
    for k in range(3):
        HEADS[f'roi_heads.box_head.{k}.conv{i + 1}'] = f'roi_head.bbox_head.{k}.shared_convs.{i}.conv'
        HEADS[f'roi_heads.box_head.{k}.conv{i + 1}.norm'] = f'roi_head.bbox_head.{k}.shared_convs.{i}.ln'
        HEADS[f'roi_heads.box_head.{k}.fc1'] = f'roi_head.bbox_head.{k}.shared_fcs.0'
        HEADS[f'roi_heads.box_predictor.{k}.cls_score'] = f'roi_head.bbox_head.{k}.fc_cls'
        HEADS[f'roi_heads.box_predictor.{k}.bbox_pred'] = f'roi_head.bbox_head.{k}.fc_reg'


@pytest.mark.usefixtures('mmdet_scope')
def test_a_detector_of_detectron2_fills_the_config():
    cfg = Config.fromfile(ROOT / 'configs/vim/cascade-mask-rcnn_vim-ti_simple-pyramid_8xb8-lsj-100e_coco.py').model
    with torch.device('meta'):
        own = MODELS.build(cfg).state_dict()
    source = {('backbone.' if key.startswith('simfp_') else 'backbone.net.') + key: value
              for key, value in reference().items()}
    for theirs, ours in HEADS.items():
        for leaf in ('weight', 'bias'):
            if f'{ours}.{leaf}' in own:
                source[f'{theirs}.{leaf}'] = torch.full(own[f'{ours}.{leaf}'].shape, float(len(source)))
    converted = vim(source)
    own['backbone.stem.pos_embed'] = own['backbone.stem.pos_embed'][..., :14, :14]
    assert {key: value.shape for key, value in converted.items()} == {key: value.shape for key, value in own.items()}
    for theirs, ours in HEADS.items():
        for leaf in ('weight', 'bias'):
            for stage in range(3) if 'mask_head' in ours else (0, ):
                key = f'{ours}.{leaf}'.replace('mask_head.0', f'mask_head.{stage}')
                assert key not in own or converted[key] is source[f'{theirs}.{leaf}']


@pytest.mark.parametrize('change, message', [
    (lambda w: w.update({'layers.0.mixer.gain': torch.zeros(1)}), r'unknown layers\.0\.mixer\.gain'),
    (lambda w: w.update(pos_embed=torch.zeros(1, 197, 192)), 'no square'),
    (lambda w: w.update(pos_embed=torch.zeros(196)), 'no square'),
    (lambda w: w.update(pos_embed=torch.zeros(())), 'no square'),
    (lambda w: w.update({'backbone.net.pos_embed': w['pos_embed']}), 'with a prefix and without'),
    (lambda w: [w.pop(key) for key in list(w) if key.startswith('layers.3.')],
     r'blocks\.# it has the numbers'),
])
def test_what_is_something_else_is_refused(change, message):
    weights = reference()
    change(weights)
    with pytest.raises(InputError, match=message):
        vim(weights)
    with pytest.raises(InputError, match='it looks like vim'):
        mamba_vision(reference())


@pytest.fixture
def messages(monkeypatch):
    """What is logged to mmengine's current logger."""
    lines: list[str] = []
    monkeypatch.setattr('mmmamba.models.backbones.pretrained.print_log', lambda line, **_: lines.append(line))
    return lines


def pretrained(path: Path, content: dict, **settings) -> nn.Module:
    torch.save(content, path)
    model = Vim(**settings, init_cfg=dict(type='Pretrained', checkpoint=str(path)))
    model.init_weights()
    return model


def test_a_classifier_starts_a_detector_of_another_size(tmp_path, messages):
    """Its position embedding is resized to the detector's grid; all else is taken over."""
    content = {'model': classifier(blocks=3)}
    same = pretrained(tmp_path / 'vim.pth', content, depth=3, img_size=224)
    other = pretrained(tmp_path / 'vim.pth', content, depth=3, img_size=(320, 512))
    expected = of('backbone', vim(content['model']))
    for key, value in same.state_dict().items():
        assert torch.equal(value, expected[key]), key
        assert key == 'stem.pos_embed' or torch.equal(value, other.state_dict()[key]), key
    assert torch.equal(other.stem.pos_embed, resize_bicubic(same.stem.pos_embed, 20, 32))
    assert 'resized' not in messages[0] and 'resized from (14, 14) to (20, 32)' in messages[1]
    assert all('4 not used: ' in line and 'cls_token' in line for line in messages)


def test_blocks_that_were_not_made_are_left_out_and_another_size_is_refused(tmp_path):
    content = {'model': classifier(blocks=3)}
    assert len(pretrained(tmp_path / 'vim.pth', content, depth=3, out_indices=(1, )).blocks) == 2
    with pytest.raises(InputError, match=r'does not fit this Vim: .* unknown \(blocks\.2'):
        pretrained(tmp_path / 'vim.pth', content, depth=2)
    with pytest.raises(InputError, match=r'stem\.pos_embed is \(1, 192, 64, 64\), not \(1, 384, 64, 64\)'):
        pretrained(tmp_path / 'vim.pth', content, arch='s', depth=3)
