"""Files that were made to do harm: nothing in them runs, and reading them ends in one clear error."""
from __future__ import annotations

import builtins
import os
import pickle
import struct
import subprocess
import time
import zipfile
from collections import OrderedDict

import pytest
import torch
import torch_files
from torch import nn
from torch_files import Storage, View

from mmmamba.convert import read_checkpoint
from mmmamba.errors import InputError


class Call:
    """Pickles as a call of a function, whose result then gets a state."""

    def __init__(self, function, *args, state=None):
        self.function, self.args, self.state = function, args, state

    def __reduce__(self):
        return (self.function, self.args) if self.state is None else (self.function, self.args, self.state)


def _calls(sentinel):
    touch = f'touch {sentinel}'
    source = f'open({str(sentinel)!r}, "w").close()'
    inner = pickle.dumps(Call(os.system, touch))
    yield 'system', Call(os.system, touch)
    yield 'eval', Call(eval, source)
    yield 'exec', Call(exec, source)
    yield 'popen', Call(subprocess.Popen, ['touch', str(sentinel)])
    yield 'open', Call(open, str(sentinel), 'w')
    yield 'getattr', Call(getattr, Call(__import__, 'os'), 'system')
    yield 'chain', Call(map, eval, [source])
    yield 'import', Call(__import__, 'antigravity')
    yield 'loads', Call(pickle.loads, inner)
    yield 'load_from_bytes', Call(torch.storage._load_from_bytes, inner)
    yield 'torch_load', Call(torch.load, str(sentinel))
    yield 'parameter', Call(torch._utils._rebuild_parameter, Call(os.system, touch), True, OrderedDict())
    yield 'from_type', Call(torch._tensor._rebuild_from_type_v2, os.system, str, (touch,), None)
    yield 'setattr', Call(setattr, Call(getattr, builtins.dict, '__class__'), 'x', Call(os.system, touch))


CALLS = [name for name, _ in _calls('')]


@pytest.fixture
def sentinel(tmp_path):
    yield tmp_path / 'sentinel'
    time.sleep(0.01)  # for a process that should not have been started
    assert not (tmp_path / 'sentinel').exists()


@pytest.mark.parametrize('name', CALLS)
def test_a_call_in_the_file_is_not_made(tmp_path, sentinel, name):
    call = dict(_calls(sentinel))[name]
    weights = {'a': View(Storage('0', 2), (2,), (1,))}
    record = {'0': torch.ones(2).numpy().tobytes()}

    alone = torch_files.write(tmp_path / 'alone.pt', call)
    with pytest.raises(InputError, match='neither a state dict nor a model'):
        read_checkpoint(alone)
    among = torch_files.write(tmp_path / 'among.pt', {'model': {**weights, 'b': call}}, record)
    with pytest.raises(InputError, match='neither a state dict nor a model'):
        read_checkpoint(among)
    beside = torch_files.write(tmp_path / 'beside.pt', {'optimizer': call, 'ema': call, 'model': weights}, record)
    assert torch.equal(read_checkpoint(beside).state_dict['a'], torch.ones(2))


@pytest.mark.parametrize('name', CALLS)
def test_a_call_in_the_state_of_a_module_is_not_made(tmp_path, sentinel, name):
    call = dict(_calls(sentinel))[name]
    model = nn.Sequential(nn.Linear(2, 2))
    model[0].note = [call]
    model[0]._forward_hooks[0] = call
    torch.save({'model': model}, tmp_path / 'model.pt')
    assert torch.equal(read_checkpoint(tmp_path / 'model.pt').state_dict['0.weight'], model[0].weight)
    model[0].register_buffer('evil', None)
    model[0]._buffers['evil'] = call
    torch.save({'model': model}, tmp_path / 'buffer.pt')
    with pytest.raises(InputError, match=r'0\.evil is not a tensor'):
        read_checkpoint(tmp_path / 'buffer.pt')


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_is_inert(tmp_path, sentinel, protocol):
    data = pickle.dumps(Call(os.system, f'touch {sentinel}'), protocol)
    with pytest.raises(InputError, match='neither a state dict nor a model'):
        read_checkpoint(torch_files.write(tmp_path / 'call.pt', data=data))
    assert not sentinel.exists()
    pickle.loads(data)  # the file is dangerous indeed
    sentinel.unlink()


@pytest.mark.parametrize('program', [
    b"(S'touch {}'\nios\nsystem\n.",  # INST
    b"(cos\nsystem\nS'touch {}'\no.",  # OBJ
    b'\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}(U\x01aU\x01bub.',  # BUILD on what stands in for a function
    b'\x80\x02ccollections\nOrderedDict\n(N}U\x08__init__cos\nsystem\nstb.',  # attributes set on a class
    b'\x80\x02cbuiltins\nset\n(N}U\x04evilK\x01stb.',
    b'\x80\x02ctorch\nSize\n(N}U\x04evilK\x01stb.',
    b'\x80\x02\x82\x01.',  # the extension registry
    b'\x80\x02\x83\x01\x00.',
    b'\x80\x02\x84\x01\x00\x00\x00.',
    b'\x80\x02Nr\xff\xff\xff\x7f.',  # a memo of 2^31 entries
    b'\x80\x02Np999999999\n.',
    b'\x80\x05\x96\x00\x00\x00\x00\x00\x10\x00\x00.',  # a bytearray of 16 TiB
    b'\x80\x04\x8e\x00\x00\x00\x00\x00\x10\x00\x00.',
    b'\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7fN.',  # a frame of 8 EiB
    b'\x80\x02K\x01Q.',  # persistent ids of other kinds
    b'\x80\x02(U\x06modulecos\nsystem\nU\x010U\x03cpuK\x01tQ.',
    b'\x80\x02K\x01K\x02R.',
    b'\x80\x63.',
    b'.',
    b'',
    b'\x80\x02}',
])
def test_a_hand_written_program_does_nothing(tmp_path, sentinel, program):
    set_before, dict_before = dir(set), dir(OrderedDict)
    path = torch_files.write(tmp_path / 'program.pt', data=program.replace(b'{}', bytes(sentinel)))
    with pytest.raises(InputError, match=r'program\.pt: (damaged pickle|neither)'):
        read_checkpoint(path)
    assert (dir(set), dir(OrderedDict)) == (set_before, dict_before)


@pytest.mark.parametrize('view, message', [
    (View(Storage('0', 2**40), (2**40,), (1,)), 'does not have the size'),
    (View(Storage('0', 2**62), (2**31, 2**31), (2**31, 1)), 'does not have the size'),
    (View(Storage('0', 5), (5,), (1,)), 'does not have the size'),
    (View(Storage('0', 3), (3,), (1,)), 'does not have the size'),
    (View(Storage('0', 4, torch.DoubleStorage), (4,), (1,)), 'does not have the size'),
    (View(Storage('0', 4), (5,), (1,)), 'beyond its storage'),
    (View(Storage('0', 4), (4,), (1,), 1), 'beyond its storage'),
    (View(Storage('0', 4), (2, 2), (4, 1)), 'beyond its storage'),
    (View(Storage('0', 4), (2,), (2**63,)), 'beyond its storage'),
    (View(Storage('0', 4), (2**40,), (0,)), 'beyond its storage'),  # expanded without end
    (View(Storage('0', 4), (4,), (1,), -1), 'malformed'),
    (View(Storage('0', 4), (4,), (-1,), 3), 'malformed'),
    (View(Storage('0', -4), (4,), (1,)), 'malformed'),
    (View(Storage('0', 4.0), (4,), (1,)), 'malformed'),
    (View(Storage('0', True), (1,), (1,)), 'malformed'),
    (View(Storage('0', 4), ('4',), (1,)), 'malformed'),
    (View(Storage('0', 4), (4,), (1, 1)), 'unsupported shape'),
    (View(Storage('0', 4), (0, 2**62), (1, 1)), 'unsupported shape'),
    (View(Storage('0', 4), 4, 1), 'tensor a'),
    (View('storage', (4,), (1,)), 'tensor a'),
    (View(Storage('0', 4, torch.ComplexFloatStorage), (4,), (1,)), 'unsupported torch.ComplexFloatStorage'),
    (View(Storage('0', 4, os.system), (4,), (1,)), 'unsupported posix.system'),
    (View(Storage('1', 4), (4,), (1,)), 'missing'),
    (View(Storage('../data.pkl', 4), (4,), (1,)), 'missing'),
])
def test_a_tensor_that_lies_about_its_storage_is_refused(tmp_path, view, message):
    path = torch_files.write(tmp_path / 'lie.pt', {'a': view}, {'0': bytes(16)})
    with pytest.raises(InputError, match=message):
        read_checkpoint(path)


def test_tensors_that_share_a_storage_to_multiply_it_are_refused(tmp_path):
    storage = Storage('0', 1000)
    path = torch_files.write(tmp_path / 'many.pt', {str(i): View(storage, (1000,), (1,)) for i in range(1000)},
                             {'0': bytes(4000)})
    with pytest.raises(InputError, match='its tensors are larger than the file'):
        read_checkpoint(path)


def test_a_zip_bomb_is_refused_unopened(tmp_path):
    size = 50_000_000
    path = torch_files.write(tmp_path / 'bomb.pt', {'a': View(Storage('0', size // 4), (size // 4,), (1,))},
                             {'0': bytes(size)}, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 100_000
    with pytest.raises(InputError, match='compressed'):
        read_checkpoint(path)


def test_a_record_that_claims_more_than_the_file_holds_is_refused(tmp_path):
    path = torch_files.write(tmp_path / 'claim.pt', {'a': View(Storage('0', 2**28), (2**28,), (1,))}, {'0': bytes(16)})
    content = bytearray(path.read_bytes())
    entry = content.rfind(b'PK\x01\x02')  # the last record's entry in the central directory
    content[entry + 20:entry + 28] = struct.pack('<II', 2**30, 2**30)
    path.write_bytes(content)
    with pytest.raises(InputError, match='missing or damaged'):
        read_checkpoint(path)


def test_a_big_endian_file_is_refused(tmp_path):
    path = torch_files.write(tmp_path / 'big.pt', {'a': View(Storage('0', 4), (4,), (1,))}, {'0': bytes(16)},
                             byteorder='big')
    with pytest.raises(InputError, match='big-endian'):
        read_checkpoint(path)


@pytest.mark.parametrize('children', [1, 2])
def test_a_module_that_contains_itself_is_refused(tmp_path, children):
    model = nn.Module()
    for index in range(children):
        model._modules[str(index)] = model
    torch.save(model, tmp_path / 'loop.pt')
    with pytest.raises(InputError, match='one contains itself'):
        read_checkpoint(tmp_path / 'loop.pt')


def test_modules_that_multiply_are_refused(tmp_path):
    model = nn.Linear(1, 1)
    for _ in range(40):  # 2^40 names, in a file of some kilobytes
        model = nn.Sequential(model, model)
    torch.save(model, tmp_path / 'laughs.pt')
    with pytest.raises(InputError, match='nest without end'):
        read_checkpoint(tmp_path / 'laughs.pt')
