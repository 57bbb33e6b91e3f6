"""Weights are loaded completely or not at all."""
import pickle

import pytest
import torch
from mmengine.logging import HistoryBuffer
from torch import nn

from mmmamba.engine import load_checkpoint_checked
from mmmamba.errors import InputError


def make(classes=3, extra=False):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, classes, 1))
    if extra:
        model.append(nn.Linear(2, 2))
    return model


class Danger:
    """Unpickling it would execute something."""

    def __reduce__(self):
        return print, ('executed',)


@pytest.mark.parametrize('wrap', [
    lambda weights: weights,
    lambda weights: {'state_dict': weights, 'meta': {'epoch': 3}},
    lambda weights: {'state_dict': {f'module.{name}': value for name, value in weights.items()}, 'meta': {'epoch': 3}},
], ids=['bare', 'mmengine', 'ddp'])
def test_fitting_weights_are_loaded(tmp_path, wrap):
    source, target = make(), make()
    torch.save(wrap(source.state_dict()), tmp_path / 'a.pth')
    meta = load_checkpoint_checked(target, str(tmp_path / 'a.pth'))
    assert meta in ({}, {'epoch': 3})
    assert all(torch.equal(value, target.state_dict()[name]) for name, value in source.state_dict().items())


@pytest.mark.parametrize(('source', 'target', 'phrases'), [
    (make(classes=5), make(), ['2 have another shape (2.weight is (5, 4, 1, 1), not (3, 4, 1, 1), 2.bias is (5,)']),
    (make(), make(extra=True), ['2 weights are missing (3.weight, 3.bias)']),
    (make(extra=True), make(), ['2 are unknown (3.weight, 3.bias)']),
    (nn.LSTM(2, 2), make(), ['9 weights are missing (0.weight, 0.bias, 1.weight, …)', '4 are unknown (weight_ih_l0']),
], ids=['other classes', 'missing', 'unknown', 'other architecture'])
def test_weights_of_another_model_are_refused_and_change_nothing(tmp_path, source, target, phrases):
    torch.save({'state_dict': source.state_dict()}, tmp_path / 'a.pth')
    before = {name: value.clone() for name, value in target.state_dict().items()}
    with pytest.raises(InputError) as error:
        load_checkpoint_checked(target, str(tmp_path / 'a.pth'))
    assert all(phrase in str(error.value) for phrase in ['a.pth does not fit this Sequential', *phrases])
    assert '\n' not in str(error.value)
    assert all(torch.equal(value, target.state_dict()[name]) for name, value in before.items())


@pytest.mark.parametrize(('content', 'message'), [
    (None, 'No such file'),
    (b'', 'the file is empty'),
    (b'version https://git-lfs.github.com/spec/v1\n', 'not a whole file'),
    (pickle.dumps({'state_dict': Danger()}), 'a pickle outside'),
    (pickle.dumps([1, 2]), 'a pickle outside'),
], ids=['missing', 'empty', 'text', 'code', 'pickle'])
def test_other_files_are_refused(tmp_path, capsys, content, message):
    if content is not None:
        (tmp_path / 'a.pth').write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        load_checkpoint_checked(make(), str(tmp_path / 'a.pth'))
    assert '\n' not in str(error.value)
    assert 'executed' not in capsys.readouterr().out


def test_what_stands_beside_the_weights_is_never_executed(tmp_path, capsys):
    source, target = make(), make()
    history = HistoryBuffer([1.0], [1])
    torch.save({'state_dict': source.state_dict(), 'meta': {'dataset_meta': {'classes': ('a', 'b')}},
                'message_hub': {'log_scalars': {'train/loss': history}}, 'danger': Danger()}, tmp_path / 'a.pth')
    meta = load_checkpoint_checked(target, str(tmp_path / 'a.pth'))
    assert meta == {'dataset_meta': {'classes': ('a', 'b')}}
    assert all(torch.equal(value, target.state_dict()[name]) for name, value in source.state_dict().items())
    assert 'executed' not in capsys.readouterr().out


def test_truncated_file_and_other_content_are_refused(tmp_path):
    torch.save(make().state_dict(), tmp_path / 'whole.pth')
    (tmp_path / 'cut.pth').write_bytes((tmp_path / 'whole.pth').read_bytes()[:800])
    torch.save(torch.ones(3), tmp_path / 'tensor.pth')
    with pytest.raises(InputError, match='not a whole file'):
        load_checkpoint_checked(make(), str(tmp_path / 'cut.pth'))
    with pytest.raises(InputError, match='neither a state dict nor a model'):
        load_checkpoint_checked(make(), str(tmp_path / 'tensor.pth'))
