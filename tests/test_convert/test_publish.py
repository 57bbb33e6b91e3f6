"""Weights to give away: what stays, what goes, and what rounding does."""
from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from mmmamba.convert import publish, read_checkpoint
from mmmamba.errors import InputError
from mmmamba.version import __version__

TOOL = Path(__file__).parents[2] / 'tools/model_converters/publish_model.py'


@pytest.fixture
def trained(tmp_path):
    """A checkpoint as mmengine writes it with EMA, whose averages are under state_dict."""
    weights = {'conv.weight': torch.randn(8, 4, 3, 3), 'norm.running_var': torch.full((8, ), 1e-7),
               'norm.num_batches_tracked': torch.tensor(7)}
    path = tmp_path / 'epoch_3.pth'
    torch.save(dict(
        meta=dict(epoch=3, iter=30, cfg='data_root = "/home/me"', dataset_meta=dict(classes=('a', 'b'))),
        state_dict=weights, ema_state_dict={name: tensor + 1 for name, tensor in weights.items()},
        optimizer=dict(state={0: dict(exp_avg=torch.zeros(8, 4, 3, 3))}), message_hub=dict()), path)
    return path, weights


def test_weights_and_classes_alone_stay(tmp_path, trained):
    path, weights = trained
    publish(path, tmp_path / 'out.pth', licence='MIT')
    written = torch.load(tmp_path / 'out.pth', weights_only=True)
    assert set(written) == {'state_dict', 'meta'}
    assert set(written['meta']) == {'dataset_meta', 'epoch', 'iter', 'mmmamba_version', 'licence'}
    assert written['meta']['dataset_meta']['classes'] == ('a', 'b')
    assert all(torch.equal(written['state_dict'][name], tensor) for name, tensor in weights.items())


def test_half_rounds_arrays_of_two_dimensions_and_nothing_else(tmp_path, trained):
    path, weights = trained
    publish(path, tmp_path / 'out.pth', half=True)
    written = torch.load(tmp_path / 'out.pth', weights_only=True)['state_dict']
    assert written['conv.weight'].dtype == torch.float16
    assert torch.equal(read_checkpoint(tmp_path / 'out.pth').state_dict['conv.weight'],
                       weights['conv.weight'].half().float())
    # In float16 this variance would be 1.19e-7 or zero.
    assert torch.equal(written['norm.running_var'], weights['norm.running_var'])
    assert written['norm.num_batches_tracked'].dtype == torch.int64


def test_notes_that_are_no_plain_values_stay_behind(tmp_path):
    meta = dict(epoch=np.int64(3), iter=30, dataset_meta=dict(classes=np.array(['a', 'b'])))
    torch.save(dict(meta=meta, state_dict={'weight': torch.ones(2, 2)}), tmp_path / 'in.pth')
    publish(tmp_path / 'in.pth', tmp_path / 'out.pth')
    assert torch.load(tmp_path / 'out.pth', weights_only=True)['meta'] == dict(iter=30, mmmamba_version=__version__)


def test_a_checkpoint_is_not_replaced_by_its_weights(tmp_path, trained):
    path, _ = trained
    content = path.read_bytes()
    (tmp_path / 'link.pth').symlink_to(path)
    for target in (path, tmp_path / 'link.pth'):
        with pytest.raises(InputError, match='would replace the checkpoint itself'):
            publish(path, target)
    assert path.read_bytes() == content


@pytest.mark.parametrize('value', [7e4, math.inf, math.nan])
def test_a_weight_without_a_float16_is_an_error(tmp_path, value):
    torch.save({'conv.weight': torch.full((2, 2), value)}, tmp_path / 'large.pth')
    with pytest.raises(InputError, match=r'conv\.weight has values that are too large for float16, or not finite'):
        publish(tmp_path / 'large.pth', tmp_path / 'out.pth', half=True)
    assert not (tmp_path / 'out.pth').exists()


def test_command(tmp_path, trained, run_script, capsys):
    path, _ = trained
    assert run_script(TOOL, path, tmp_path / 'out.pth', '--half') == 0
    out = capsys.readouterr().out
    assert out.startswith(f'{tmp_path}/out.pth: ')
    assert out.endswith(f' MB instead of {path.stat().st_size / 1e6:.1f} MB\n')
    assert run_script(TOOL, tmp_path / 'missing.pth', tmp_path / 'out.pth') == 2
    assert 'missing.pth' in capsys.readouterr().err
