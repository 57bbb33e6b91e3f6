"""Every block of Mamba YOLO against the reference implementation's outputs, on weights made from their names."""
from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from parity_weights import state_dict
from torch import nn

from mmmamba.layers import SS2D, LSBlock, ODSSBlock, RGBlock, SimpleStem, VisionClueMerge
from mmmamba.ops.triton.scan import unavailable

DATA = Path(__file__).parents[1] / 'data'
BATCH_NORM = partial(nn.BatchNorm2d, eps=1e-5)  # what the fixtures were made with
TOLERANCE = {'reference': 1e-5, 'torch': 1e-4, None: 1e-4}

LS_KEYS = {'fc1.': 'dwconv.', 'norm.': 'norm.', 'fc2.': 'fc1.', 'fc3.': 'fc2.'}
BODY_KEYS = {
    'norm.norm.': 'norm1.',
    'norm2.norm.': 'norm2.',
    'mlp.': 'mlp.',
    **{f'lsblock.{old}': f'local.{new}' for old, new in LS_KEYS.items()},
}
BACKBONE_KEYS = {'proj_conv.0.': 'in_proj.conv.', 'proj_conv.1.': 'in_proj.norm.', 'op.': 'ss2d.0.', **BODY_KEYS}
NECK_KEYS = {'in_proj.0.': 'in_proj.conv.', 'in_proj.1.': 'in_proj.norm.', 'ss2d.': 'ss2d.', **BODY_KEYS}
STEM_KEYS = {f'conv.{i}.': f'conv{1 + i // 3}.{("conv", "norm")[i % 3]}.' for i in (0, 1, 3, 4)}

BLOCKS = {
    'lsblock': (partial(LSBlock, 32, BATCH_NORM), LS_KEYS),
    'rgblock': (partial(RGBlock, 32), {'': ''}),
    'ss2d': (partial(SS2D, 32), {'': ''}),
    'simplestem': (partial(SimpleStem, 3, 32, BATCH_NORM), STEM_KEYS),
    'visioncluemerge': (partial(VisionClueMerge, 32, 64, BATCH_NORM), {
        'pw_linear.0.': 'proj.conv.',
        'pw_linear.1.': 'proj.norm.'
    }),
    'vssblock': (partial(ODSSBlock, 24, 32, local_spatial=True, norm_layer=BATCH_NORM), BACKBONE_KEYS),
    'xssblock': (partial(ODSSBlock, 48, 32, num_ss2d=2, proj_bias=False, local_spatial=True,
                         norm_layer=BATCH_NORM), NECK_KEYS),
    'xssblock_same': (partial(ODSSBlock, 32, 32, proj_bias=False, local_spatial=True,
                              norm_layer=BATCH_NORM), NECK_KEYS),
}


def rename(key: str, table: dict[str, str]) -> str:
    old = next(prefix for prefix in table if key.startswith(prefix))
    return table[old] + key[len(old):]


@pytest.mark.parametrize('name', BLOCKS)
@pytest.mark.parametrize('backend', TOLERANCE)
def test_block_equals_reference(name, backend):
    make, table = BLOCKS[name]
    shapes = json.loads((DATA / 'mamba_yolo_blocks.shapes.json').read_text())[name]
    arrays = np.load(DATA / 'mamba_yolo_blocks.npz')
    block = make().eval()
    block.load_state_dict({rename(key, table): torch.from_numpy(value) for key, value in state_dict(shapes).items()})
    for module in block.modules():
        if isinstance(module, SS2D):
            module.scan_backend = backend
    expected = torch.from_numpy(arrays[f'{name}.out'])
    with torch.no_grad():
        out = block(torch.from_numpy(arrays[f'{name}.in']))
    assert out.shape == expected.shape
    assert (out - expected).norm() / expected.norm() < TOLERANCE[backend]


@pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))
@torch.no_grad()
def test_a_block_on_triton_equals_one_on_torch():
    torch.manual_seed(0)
    block, x = ODSSBlock(8, 8).eval(), torch.randn(1, 8, 4, 5)
    outs = []
    for block.ss2d[0].scan_backend in ('triton', 'torch'):
        outs.append(block(x))
    torch.testing.assert_close(*outs, rtol=1e-5, atol=1e-6)
