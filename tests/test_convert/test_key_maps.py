"""Key maps against the names of the references' tensors and of our models."""
from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS

import mmmamba  # noqa: F401  (registers the models)
from mmmamba.convert import SYSTEMS, mamba_yolo, yolov8
from mmmamba.errors import InputError

DATA = Path(__file__).parents[1] / 'data'
VARIANTS = {  # Blocks of each stage, scans of each block of the neck, LSBlocks
    'paper-t-b': ((1, 2, 2, 1), 1, False),
    'paper-l': ((2, 4, 4, 2), 2, False),
    'released-t-b': ((1, 1, 3, 1), 1, True),
    'released-l': ((2, 2, 6, 2), 2, True),
    'paper-depths-with-lsblock': ((1, 2, 2, 1), 1, True),
}


def _shapes(name: str) -> dict[str, tuple[int, ...]]:
    return {key: tuple(shape) for key, shape in json.loads((DATA / f'{name}.shapes.json').read_text()).items()}


def _tensors(keys) -> dict[str, torch.Tensor]:
    """A distinct value for each key; the map must not mind shapes, but for the projection of the head."""
    return {key: torch.full((1, 16, 1, 1) if 'dfl' in key else (1,), float(i)) for i, key in enumerate(keys)}


def _mamba_yolo_keys(depths, num_ss2d, local_spatial) -> list[str]:
    """Names that the reference gives to any size, made from those of a small one with a block of every kind."""
    small = list(_shapes('mamba_yolo_t_released'))
    keys = [key for key in small if not re.match(r'model\.[1357]\.', key) and '.ss2d.' not in key]
    block = [key[len('model.1.'):] for key in small if key.startswith('model.1.')]
    for stage, depth in enumerate(depths):
        prefix = f'model.{2 * stage + 1}.'
        keys += [f'{prefix}{j}.{leaf}' if depth > 1 else prefix + leaf for j in range(depth) for leaf in block]
    for key in small:
        if '.ss2d.0.' in key:
            keys += [key.replace('.ss2d.0.', f'.ss2d.{k}.') for k in range(num_ss2d)]
    return [key for key in keys if local_spatial or 'lsblock' not in key]


def _detector(backbone: dict, neck: dict, head: str = 'YOLOv8Head') -> torch.nn.Module:
    channels = [8, 16, 16]
    return MODELS.build(dict(
        type='SingleStageDetector',
        backbone=dict(widths=(8, *channels), arch=None, **backbone),
        neck=dict(in_channels=channels, **neck),
        bbox_head=dict(type=head, num_classes=3, in_channels=channels)))


@pytest.mark.parametrize('variant', VARIANTS)
def test_mamba_yolo_names_every_tensor_of_our_model(variant):
    depths, num_ss2d, local_spatial = VARIANTS[variant]
    source = _tensors(_mamba_yolo_keys(depths, num_ss2d, local_spatial))
    model = _detector(dict(type='ODMamba', depths=depths, local_spatial=local_spatial),
                      dict(type='ODSSPAFPN', num_ss2d=num_ss2d, local_spatial=local_spatial))
    converted = mamba_yolo(source)
    assert converted.keys() == model.state_dict().keys()
    assert sorted(t.flatten()[0].item() for t in converted.values()) == list(range(len(source)))


@pytest.mark.parametrize('depths, num_blocks', [((1, 2, 2, 1), 1), ((2, 4, 4, 2), 2), ((3, 6, 6, 3), 3)])
def test_yolov8_names_every_tensor_of_our_model(depths, num_blocks):
    blocks = dict(zip((2, 4, 6, 8), depths))
    source = []
    for key in _shapes('yolov8n'):
        inner = re.match(r'model\.(\d+)\.m\.(\d+)\.', key)
        if inner is None:
            source.append(key)
        elif inner[2] == '0':
            count = blocks.get(int(inner[1]), num_blocks)
            source += [key.replace('.m.0.', f'.m.{j}.') for j in range(count)]
    model = _detector(dict(type='YOLOv8CSPDarknet', depths=depths), dict(type='YOLOv8PAFPN', num_blocks=num_blocks))
    converted = yolov8(_tensors(source))
    assert converted.keys() == model.state_dict().keys()
    assert len(converted) == len(source)


@pytest.mark.parametrize('name, convert, backbone, neck', [
    ('yolov8n_seg', yolov8, 'YOLOv8CSPDarknet', 'YOLOv8PAFPN'),
    ('mamba_yolo_t_seg_paper', mamba_yolo, 'ODMamba', 'ODSSPAFPN'),
])
def test_segmentors_name_every_tensor_of_our_model(name, convert, backbone, neck):
    model = _detector(dict(type=backbone, depths=(1, 2, 2, 1)), dict(type=neck), 'YOLOv8InsHead')
    source = _tensors(_shapes(name))
    converted = convert(source)
    assert converted.keys() == model.state_dict().keys() and len(converted) == len(source)


def test_projection_of_the_head_becomes_a_vector():
    source = _tensors(_shapes('yolov8n'))
    source['model.22.dfl.conv.weight'] = torch.arange(16.0).reshape(1, 16, 1, 1)
    assert torch.equal(yolov8(source)['bbox_head.project'], torch.arange(16.0))


@pytest.mark.parametrize('prefix', ['module.', 'model.', 'module.model.', 'model.module.'])
@pytest.mark.parametrize('system, name', [('mamba-yolo', 'mamba_yolo_t_paper'), ('yolov8', 'yolov8n')])
def test_wrappers_are_taken_off(system, name, prefix):
    source = _tensors(_shapes(name))
    wrapped = {prefix + key: value for key, value in source.items()}
    assert SYSTEMS[system](wrapped).keys() == SYSTEMS[system](source).keys()


def test_two_models_in_one_state_dict_are_ambiguous():
    source = _tensors(_shapes('yolov8n'))
    twice = {**source, **{'module.' + key: value for key, value in source.items()}}
    with pytest.raises(InputError, match=r'ambiguous.*model\.0\.conv\.weight.*module\.model\.0\.conv\.weight'):
        yolov8(twice)


@pytest.mark.parametrize('system, key, looks_like', [
    ('mamba-yolo', 'model.2.m.0.cv1.conv.weight', 'yolov8'),
    ('yolov8', 'model.1.proj_conv.0.weight', 'mamba-yolo'),
    ('yolov8', 'patch_embed.conv_down.0.weight', 'mamba-vision'),
    ('mamba-yolo', 'layers.0.blocks.0.conv_branch.0.weight', 'efficient-vmamba'),
    ('yolov8', 'layers.0.blocks.0.op.x_proj.weight', 'vmamba'),
    ('vmamba', 'layers.0.mixer.x_proj_b.weight', 'vim'),
    ('vim', 'layers.0.mixer.x_proj_0.weight', 'local-mamba'),
    ('vmamba', 'layers.0.blocks.0.op.multi_scan.attn.norm.weight', 'local-mamba'),
    ('mamba-yolo', 'backbone.stem.conv1.conv.weight', 'this project'),
])
def test_another_system_is_named(system, key, looks_like):
    message = f'no {system} state dict: unknown {re.escape(key)}; it looks like {looks_like}'
    with pytest.raises(InputError, match=message):
        SYSTEMS[system]({key: torch.zeros(1)})


@pytest.mark.parametrize('extra, message', [
    (['model.23.weight'], r'unknown model\.23\.weight$'),
    (['model.22.proto.weight', 'model.0.conv.running_sum', 'a', 'b', 'c'],
     r'unknown model\.22\.proto\.weight, model\.0\.conv\.running_sum, a and 2 more$'),
])
def test_unknown_tensors_are_named(extra, message):
    with pytest.raises(InputError, match=message):
        yolov8({**_tensors(_shapes('yolov8n')), **_tensors(extra)})


def without(pattern: str, keys) -> list[str]:
    return [key for key in keys if not re.match(pattern, key)]


@pytest.mark.parametrize('system, name, change, message', [
    ('mamba-yolo', 'mamba_yolo_t_paper', lambda keys: without(r'model\.3\.0\.', keys), r'stages\.1\.# .*\[1\]'),
    ('mamba-yolo', 'mamba_yolo_t_paper', lambda keys: [*keys, 'model.11.ss2d.2.Ds'], r'ss2d\.# .*\[0, 2\]'),
    ('mamba-yolo', 'mamba_yolo_t_paper', lambda keys: [*keys, 'model.21.cv2.3.2.weight'], 'unknown'),
    ('yolov8', 'yolov8n', lambda keys: without(r'model\.4\.m\.0\.', keys), r'blocks\.# .*\[1\]'),
    ('yolov8', 'yolov8n', lambda keys: [*keys, 'model.2.m.00.cv1.conv.weight'], 'unknown'),
    ('yolov8', 'yolov8n', lambda keys: [*keys, 'model.2.m.\u0663.cv1.conv.weight'], 'unknown'),
    ('yolov8', 'yolov8n', lambda keys: [*keys, 'model.22.cv3.3.2.weight'], 'unknown'),
    ('yolov8', 'yolov8n', lambda keys: ['module.' * key.startswith('model.0.') + key for key in keys], 'prefixes'),
    ('vmamba', None, lambda _: ['layers.0.blocks.0.op.Ds', 'layers.4.blocks.0.op.Ds'], 'unknown layers.4'),
    ('vmamba', None, lambda _: ['layers.0.blocks.0.op.Ds', 'outnorm4.weight'], 'unknown outnorm4'),
    ('local-mamba', None, lambda _: ['layers.0.blocks.0.op.Ds', 'layers.4.blocks.0.op.Ds'], 'unknown layers.4'),
    ('mamba-vision', None, lambda _: ['levels.2.blocks.0.norm1.weight', 'levels.3.downsample.reduction.0.weight'],
     'unknown levels.3'),
])
def test_modules_that_no_model_of_the_system_has_are_refused(system, name, change, message):
    keys = change(list(_shapes(name)) if name else [])
    with pytest.raises(InputError, match=message):
        SYSTEMS[system](_tensors(keys))


@pytest.mark.parametrize('system', SYSTEMS)
def test_an_empty_state_dict_is_refused(system):
    with pytest.raises(InputError, match='it is empty'):
        SYSTEMS[system]({})
