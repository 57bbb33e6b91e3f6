"""EfficientVMamba against the reference implementation's outputs, through the weight converter."""
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from parity_weights import image, state_dict
from torch import nn

import mmmamba  # noqa: F401  (registers the models)
from mmmamba.convert import SYSTEMS
from mmmamba.layers import SS2D

DATA = Path(__file__).parents[1] / 'data'
TOLERANCE = {'reference': 1e-5, None: 1e-4}
INPUTS = {'efficient_vmamba_t': (1, 3, 64, 96), 'efficient_vmamba_t_odd': (1, 3, 60, 92)}


def reference_weights(name: str = 'efficient_vmamba_t') -> dict[str, torch.Tensor]:
    shapes = json.loads((DATA / f'{name}.shapes.json').read_text())
    return {key: torch.from_numpy(value) for key, value in state_dict(shapes).items()}


def loaded(name: str) -> nn.Module:
    model = MODELS.build(dict(type='EfficientVMamba', arch='t')).eval()
    weights = SYSTEMS['efficient-vmamba'](reference_weights(name))
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
