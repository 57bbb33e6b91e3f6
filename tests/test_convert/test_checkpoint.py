"""Reading what references saved, and writing what mmengine loads."""
from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from contextlib import suppress
from importlib.util import find_spec

import pytest
import torch

from mmmamba.convert import read_checkpoint, write_checkpoint
from mmmamba.errors import InputError

PACKAGE = """
import collections, datetime, pathlib, sys, types
import numpy as np
import torch
from torch import nn

open(__file__ + '.imported', 'a').write('x')


class Unit(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3)
        self.bn = nn.BatchNorm2d(channels)
        self.act = nn.SiLU()
        self.register_buffer('anchors', torch.ones(3), persistent=False)
        self.register_buffer('nothing', None)
        self.A_logs = nn.Parameter(torch.randn(2, 3))
        self.A_logs._no_weight_decay = True
        self.scale = nn.Parameter(torch.randn(4))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.model = nn.Sequential(Unit(2), nn.ModuleList([Unit(1)]), nn.Identity())
        self.model[0].conv.weight.data = self.model[0].conv.weight.data.transpose(2, 3)
        self.names = {0: 'cat'}
        self.yaml = {'nc': np.int64(3), 'anchors': np.arange(3), 'path': pathlib.PurePosixPath('a')}
        self.args = types.SimpleNamespace(lr=0.1, when=datetime.datetime.now())
        self.counts = collections.defaultdict(int, a=1)
        self.stride = torch.tensor([8., 16.])
        self.device, self.dtype, self.size = torch.device('cpu'), torch.float16, torch.Size([1, 2])
        self.kinds = {frozenset([1]), 'b'}


if __name__ == '__main__':
    import fake_reference
    folder = pathlib.Path(sys.argv[1])
    model, other = fake_reference.Model(), fake_reference.Model()
    for parameter in other.parameters():
        parameter.data.add_(1)
    torch.save(model.state_dict(), folder / 'truth.pt')
    torch.save(model, folder / 'bare.pt')
    torch.save({'epoch': 3, 'model': model, 'optimizer': None}, folder / 'model.pt')
    torch.save({'epoch': 3, 'model': other, 'ema': model}, folder / 'ema.pt')
    torch.save({'model': model, 'ema': None, 'date': datetime.datetime.now()}, folder / 'no_ema.pt')
    torch.save({'model': nn.DataParallel(model)}, folder / 'wrapped.pt')
    dicts = {'model': other.state_dict(), 'state_dict': other.state_dict(), 'ema': model.state_dict()}
    torch.save(dicts, folder / 'dicts.pt')
    torch.save({'ema': model.half()}, folder / 'half.pt')
    torch.save({'model': fake_reference.Model().bfloat16()}, folder / 'bfloat16.pt')
"""


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    """Folder of files that another process saved, with classes that this one cannot import."""
    folder = tmp_path_factory.mktemp('saved')
    package = tmp_path_factory.mktemp('package')
    (package / 'fake_reference.py').write_text(PACKAGE)
    environment = {**os.environ, 'PYTHONPATH': str(package)}
    subprocess.run([sys.executable, package / 'fake_reference.py', folder], check=True, env=environment)
    (package / 'fake_reference.py.imported').unlink()
    yield folder
    assert find_spec('fake_reference') is None
    assert not (package / 'fake_reference.py.imported').exists()


@pytest.fixture(scope='module')
def truth(saved):
    return torch.load(saved / 'truth.pt', weights_only=True)


def _assert_equal(state_dict, expected):
    assert list(state_dict) == list(expected)
    for name, tensor in expected.items():
        assert state_dict[name].dtype == (torch.int64 if name.endswith('num_batches_tracked') else torch.float32)
        assert torch.equal(state_dict[name], tensor), name


@pytest.mark.parametrize('name, origin', [('bare', ''), ('model', 'model'), ('ema', 'ema'), ('no_ema', 'model'),
                                          ('dicts', 'ema'), ('truth', '')])
def test_weights_are_found_and_averaged_ones_preferred(saved, truth, name, origin):
    checkpoint = read_checkpoint(saved / f'{name}.pt')
    assert (checkpoint.origin, checkpoint.upcast) == (origin, 0)
    _assert_equal(checkpoint.state_dict, truth)


def test_wrapping_module_stays_in_the_names(saved, truth):
    _assert_equal(read_checkpoint(saved / 'wrapped.pt').state_dict, {f'module.{name}': x for name, x in truth.items()})


@pytest.mark.parametrize('name, dtype', [('half', torch.float16), ('bfloat16', torch.bfloat16)])
def test_half_precision_is_upcast(saved, truth, name, dtype):
    checkpoint = read_checkpoint(saved / f'{name}.pt')
    _assert_equal(checkpoint.state_dict, {name: x.to(dtype).float() if x.is_floating_point() else x
                                          for name, x in truth.items()})
    assert checkpoint.upcast == sum(x.is_floating_point() for x in truth.values())


def test_parameters_alone_take_no_more_than_they_need(saved):
    for tensor in read_checkpoint(saved / 'ema.pt').state_dict.values():
        assert tensor.untyped_storage().nbytes() == tensor.nbytes


def test_views_of_one_storage(tmp_path):
    base = torch.arange(12.0)
    torch.save({'a': base[2:8].view(2, 3), 'b': base.view(3, 4).t()[1:3], 'c': base[5]}, tmp_path / 'views.pt')
    state_dict = read_checkpoint(tmp_path / 'views.pt').state_dict
    assert torch.equal(state_dict['a'], base[2:8].view(2, 3))
    assert torch.equal(state_dict['b'], base.view(3, 4).t()[1:3])
    assert state_dict['c'] == 5


@pytest.mark.parametrize('content', [
    [1, 2], {}, None, 'text', {'model': {}}, {'epoch': 1}, {'model': {'weight': 3}}, {1: torch.zeros(1)},
    {'state_dict': {'a': torch.zeros(1), 'b': 'text'}}, torch.zeros(3)
])
def test_a_file_without_weights_is_refused(tmp_path, content):
    torch.save(content, tmp_path / 'other.pt')
    with pytest.raises(InputError, match=r'other\.pt: neither a state dict nor a model, and none under ema, model'):
        read_checkpoint(tmp_path / 'other.pt')


@pytest.mark.parametrize('fraction', [0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(saved, tmp_path, fraction):
    whole = (saved / 'model.pt').read_bytes()
    (tmp_path / 'part.pt').write_bytes(whole[:int(len(whole) * fraction)])
    with pytest.raises(InputError, match=r'part\.pt: (the file is empty|not a whole file of torch\.save)'):
        read_checkpoint(tmp_path / 'part.pt')


def test_flipped_bytes_never_raise_anything_else(saved, tmp_path):
    whole = (saved / 'model.pt').read_bytes()
    generator = torch.Generator().manual_seed(0)
    for position in torch.randint(len(whole), (150,), generator=generator).tolist():
        flipped = bytes([whole[position] ^ 0xFF])
        (tmp_path / 'flipped.pt').write_bytes(whole[:position] + flipped + whole[position + 1:])
        with suppress(InputError):
            read_checkpoint(tmp_path / 'flipped.pt')


def test_other_files_are_refused(tmp_path):
    torch.save(torch.zeros(1), tmp_path / 'legacy.pt', _use_new_zipfile_serialization=False)
    with pytest.raises(InputError, match='a pickle outside of a zip file'):
        read_checkpoint(tmp_path / 'legacy.pt')
    (tmp_path / 'image.jpg').write_bytes(bytes(range(256)))
    with pytest.raises(InputError, match='not a whole file of torch.save'):
        read_checkpoint(tmp_path / 'image.jpg')
    (tmp_path / 'byte.pt').write_bytes(b'\x80')
    with pytest.raises(InputError, match='not a whole file of torch.save'):
        read_checkpoint(tmp_path / 'byte.pt')
    with pytest.raises(InputError, match='No such file'):
        read_checkpoint(tmp_path / 'absent.pt')
    with pytest.raises(InputError, match='directory'):
        read_checkpoint(tmp_path)
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), tmp_path / 'script.pt')
    with pytest.raises(InputError, match='TorchScript'):
        read_checkpoint(tmp_path / 'script.pt')
    with zipfile.ZipFile(tmp_path / 'plain.zip', 'w') as archive:
        archive.writestr('readme.txt', 'text')
    with pytest.raises(InputError, match='a zip file, but not one of torch.save'):
        read_checkpoint(tmp_path / 'plain.zip')


def test_written_checkpoint_is_what_mmengine_loads(tmp_path):
    state_dict = {'a.weight': torch.randn(2, 3)}
    write_checkpoint(tmp_path / 'out.pth', state_dict, {'converted_from': 'x'})
    loaded = torch.load(tmp_path / 'out.pth', weights_only=True)
    assert loaded['meta'] == {'converted_from': 'x'}
    assert torch.equal(loaded['state_dict']['a.weight'], state_dict['a.weight'])
    assert [path.name for path in tmp_path.iterdir()] == ['out.pth']


def test_a_failing_write_keeps_the_previous_file(tmp_path, monkeypatch):
    write_checkpoint(tmp_path / 'out.pth', {'a': torch.zeros(1)}, {})
    before = (tmp_path / 'out.pth').read_bytes()

    def full(obj, file):
        file.write(b'half of it')
        raise RuntimeError('[enforce fail] unexpected pos 64 vs 0')

    monkeypatch.setattr(torch, 'save', full)
    with pytest.raises(InputError, match=r'cannot write .*out\.pth: '):
        write_checkpoint(tmp_path / 'out.pth', {'a': torch.ones(1)}, {})
    assert (tmp_path / 'out.pth').read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ['out.pth']


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(InputError, match=r'cannot write .*absent/out\.pth: No such file or directory'):
        write_checkpoint(tmp_path / 'absent' / 'out.pth', {}, {})
