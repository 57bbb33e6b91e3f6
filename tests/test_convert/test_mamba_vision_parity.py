"""MambaVision against the reference implementation's outputs, through the weight converter; and the converter."""
from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from parity_weights import image, state_dict
from torch import Tensor, nn

import mmmamba  # noqa: F401  (registers the models)
from mmmamba.convert import SYSTEMS, dropped, mamba_vision
from mmmamba.errors import InputError
from mmmamba.layers import MambaVisionMixer

DATA = Path(__file__).parents[1] / 'data'
SMALL = 'mamba_vision_t_w14_7'
LARGE = 'mamba_vision_t_w112_56'
FIXTURES = {SMALL: ((96, 160), (14, 7)), LARGE: ((64, 96), (112, 56))}
TOLERANCE = {'reference': 1e-5, None: 1e-4}


@cache
def reference_shapes() -> dict[str, tuple[int, ...]]:
    """Those of T; the two fixtures differ in their windows, of which no weight depends."""
    small, large = (json.loads((DATA / f'{name}.shapes.json').read_text()) for name in FIXTURES)
    assert small == large
    return {key: tuple(shape) for key, shape in small.items()}


@cache
def _weights() -> dict[str, Tensor]:
    return tensors(reference_shapes())


def reference_weights() -> dict[str, Tensor]:
    return dict(_weights())


def tensors(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    return {key: torch.from_numpy(value) for key, value in state_dict(shapes).items()}


def classifier() -> dict[str, Tensor]:
    """What the reference publishes: no norms of the outputs, but a batch norm and a linear layer behind the stages."""
    weights = {key: value for key, value in reference_weights().items() if not key.startswith('outnorm')}
    norm = dict.fromkeys(('weight', 'bias', 'running_mean', 'running_var'), (640,))
    head = {'norm.num_batches_tracked': (), 'head.weight': (10, 640), 'head.bias': (10,)}
    return {**weights, **tensors({**{f'norm.{name}': shape for name, shape in norm.items()}, **head})}


def backbone(**settings) -> nn.Module:
    return MODELS.build(dict(type='MambaVision', **settings)).eval()


def load(name: str) -> tuple[nn.Module, Tensor, dict[str, Tensor]]:
    """The backbone with the fixture's weights, its image, its outputs."""
    size, window_sizes = FIXTURES[name]
    model = backbone(arch='t', window_sizes=window_sizes)
    weights = mamba_vision(reference_weights())
    model.load_state_dict({key.removeprefix('backbone.'): value for key, value in weights.items()}, strict=True)
    expected = [torch.from_numpy(value) for value in np.load(DATA / f'{name}.npz').values()]
    return model, torch.from_numpy(image(0, 1, 3, *size)), expected


def use(model: nn.Module, backend: str | None) -> list[MambaVisionMixer]:
    mixers = [module for module in model.modules() if isinstance(module, MambaVisionMixer)]
    for mixer in mixers:
        mixer.scan_backend = backend
    return mixers


def error(out: Tensor, expected: Tensor) -> float:
    return ((out.double() - expected.double()).norm() / expected.double().norm()).item()


@torch.no_grad()
@pytest.mark.parametrize('backend', TOLERANCE)
def test_equals_reference(backend):
    model, x, expected = load(SMALL)
    use(model, backend)
    outs = model(x)
    assert [out.shape for out in outs] == [reference.shape for reference in expected]
    for out, reference in zip(outs, expected):
        assert error(out, reference) < TOLERANCE[backend]


@torch.no_grad()
def test_equals_reference_with_the_windows_of_detectors():
    # Attention among 12,544 tokens takes most of a minute on a core: one pass compares the model on the reference
    # backend with the fixture, and each mixer on the default backend with itself.
    model, x, expected = load(LARGE)
    errors = []

    def on_default(mixer, inputs, out):
        mixer.scan_backend = None
        errors.append(error(mixer.forward(*inputs), out))

    for mixer in use(model, 'reference'):
        mixer.register_forward_hook(on_default)
    outs = model(x)
    assert [out.shape for out in outs] == [reference.shape for reference in expected]
    for out, reference in zip(outs, expected):
        assert error(out, reference) < TOLERANCE['reference']
    assert len(errors) == 6 and max(errors) < TOLERANCE[None]


@pytest.mark.parametrize('depths, layer_scale', [((1, 3, 8, 4), 0), ((3, 3, 7, 5), 1e-5), ((1, 1, 12, 1), 1e-5)])
def test_names_every_tensor_of_our_model(depths, layer_scale):
    with torch.device('meta'):
        own = backbone(depths=depths, layer_scale=layer_scale).state_dict()
    source = {key: shape for key, shape in reference_shapes().items() if '.blocks.' not in key}
    for stage, (depth, depth_of_t) in enumerate(zip(depths, (1, 3, 8, 4))):
        for index in range(depth):
            block = f'levels.{stage}.blocks.{index}.'
            example = f'levels.{stage}.blocks.{0 if 2 * index < depth else depth_of_t - 1}.'
            source.update({key.replace(example, block): shape
                           for key, shape in reference_shapes().items() if key.startswith(example)})
            if stage >= 2 and layer_scale:
                source.update({f'{block}gamma_{i}': source[f'{block}norm1.weight'] for i in (1, 2)})
    numbered = {key: torch.full(shape, float(i)) for i, (key, shape) in enumerate(source.items())}
    converted = mamba_vision(numbered)
    assert {key.removeprefix('backbone.'): value.shape for key, value in converted.items()} == {
        key: value.shape for key, value in own.items()}
    used = [number for value in converted.values() for number in value.unique().tolist()]
    assert sorted(used) == list(range(len(source)))


@torch.no_grad()
def test_joined_convolutions_are_the_two():
    source = reference_weights()
    joined = mamba_vision(source)['backbone.stages.2.0.mixer.conv.weight']
    x = torch.randn(2, 320, 11)
    expected = [nn.functional.conv1d(half, source[f'levels.2.blocks.0.mixer.conv1d_{name}.weight'], padding='same',
                                     groups=160) for name, half in zip('xz', x.chunk(2, dim=1))]
    out = nn.functional.conv2d(x.unsqueeze(2), joined, padding=(0, 1), groups=320).squeeze(2)
    torch.testing.assert_close(out, torch.cat(expected, dim=1))


@pytest.mark.parametrize('name', ['x', 'z'])
def test_half_a_mixer_is_refused(name):
    source = reference_weights()
    del source[f'levels.3.blocks.1.mixer.conv1d_{name}.weight']
    with pytest.raises(InputError, match='only one of conv_x.weight and conv_z.weight'):
        mamba_vision(source)


@pytest.mark.parametrize('prefix', ['module.', 'model.', 'module.model.'])
def test_wrapped_classifiers_and_detectors(prefix):
    source = classifier()
    plain = mamba_vision(source)
    assert all(key.startswith('backbone.') for key in plain) and len(dropped(source, 'mamba-vision')) == 7
    wrapped = {prefix + key: value for key, value in source.items()}
    assert mamba_vision(wrapped).keys() == plain.keys()
    heads = {'neck.lateral_convs.0.conv.weight': torch.zeros(1), 'roi_head.bbox_head.0.fc_cls.bias': torch.ones(1)}
    detector = {**{f'backbone.{key}': value for key, value in reference_weights().items()}, **heads}
    assert mamba_vision(detector).keys() == mamba_vision(reference_weights()).keys() | heads.keys()


@pytest.mark.parametrize('system, key, looks_like', [
    ('mamba-vision', 'model.1.proj_conv.0.weight', 'mamba-yolo'),
    ('mamba-vision', 'layers.0.blocks.0.conv_branch.0.weight', 'efficient-vmamba'),
    ('yolov8', 'levels.0.patch_embed.conv_down.0.weight', 'mamba-vision'),
])
def test_another_system_is_named(system, key, looks_like):
    with pytest.raises(InputError, match=f'no {system} state dict: unknown .*; it looks like {looks_like}'):
        SYSTEMS[system]({key: torch.zeros(1)})


@pytest.mark.parametrize('out_indices', [(0, 1, 2, 3), (1, 2)])
def test_a_classifier_loads_through_init_cfg(tmp_path, out_indices, monkeypatch):
    messages = []
    monkeypatch.setattr('mmmamba.models.backbones.pretrained.print_log', lambda text, **_: messages.append(text))
    torch.save(dict(state_dict=classifier()), tmp_path / 'tiny.pth.tar')
    init_cfg = dict(type='Pretrained', checkpoint=f'{tmp_path}/tiny.pth.tar')
    model = backbone(out_indices=out_indices, init_cfg=init_cfg)
    model.init_weights()
    assert len(messages) == 1
    assert re.search(r'not used: norm\.weight.*; the norms of the outputs start anew', messages[0])
    expected = {key.removeprefix('backbone.'): value for key, value in mamba_vision(classifier()).items()}
    own = model.state_dict()
    for key in own:
        if not key.startswith('out_norms.'):
            assert torch.equal(own[key], expected[key]), key
    for key in own.keys() - expected.keys():
        assert (own[key] == key.endswith('weight')).all(), key


def test_weights_of_another_size_are_refused(tmp_path):
    torch.save(dict(state_dict=classifier()), tmp_path / 'tiny.pth.tar')
    model = backbone(depths=(1, 3, 8, 5), init_cfg=dict(type='Pretrained', checkpoint=f'{tmp_path}/tiny.pth.tar'))
    missing = re.escape('weights are missing (stages.3.2.mixer.A_log')
    unknown = re.escape('unknown (stages.3.2.mixer.')
    with pytest.raises(InputError, match=rf'does not fit this MambaVision: \d+ {missing}.*{unknown}'):
        model.init_weights()
