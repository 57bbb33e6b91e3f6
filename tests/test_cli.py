"""One line and a status for every failure that is the user's."""
import errno

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import Registry
from torch.utils.data import DataLoader

from mmmamba import cli
from mmmamba.errors import InputError


def run_and_catch(capsys, error):
    def main():
        raise error
    with pytest.raises(SystemExit) as ended:
        cli.run(main)
    printed = capsys.readouterr()
    assert printed.out == ''
    return ended.value.code, printed.err


@pytest.mark.parametrize(('error', 'line'), [
    (InputError('a.json has no images'), 'a.json has no images'),
    (InputError('two\n  lines'), 'two lines'),
    (InputError('class `ODMamba` in mmmamba/models/x.py: arch is wrong'), 'arch is wrong'),
    (FileNotFoundError(errno.ENOENT, 'No such file or directory', 'my_config.py'), 'no such file: my_config.py'),
    (OSError(errno.ENOSPC, 'No space left on device', 'log.json'), 'no space left on the disk: log.json'),
])
def test_mistakes_are_one_line_and_status_two(capsys, error, line):
    assert run_and_catch(capsys, error) == (2, f'error: {line}\n')


def test_missing_config_is_named(capsys, tmp_path):
    path = tmp_path / 'nothing.py'
    with pytest.raises(FileNotFoundError) as error:
        Config.fromfile(path)
    status, line = run_and_catch(capsys, error.value)
    assert status == 2 and str(path) in line and line.count('\n') == 1


def test_unknown_type_is_named(capsys):
    registry = Registry('model')
    with pytest.raises(KeyError) as error:
        registry.build(dict(type='ODMambo'))
    assert run_and_catch(capsys, error.value) == (2, 'error: unknown model: ODMambo\n')


class Failing:
    def __len__(self):
        return 4

    def __getitem__(self, index):
        raise InputError('image 3.jpg is truncated')


def test_error_of_a_data_worker_loses_its_traceback(capsys):
    with pytest.raises(InputError) as error:
        next(iter(DataLoader(Failing(), num_workers=1)))
    assert 'Traceback' in str(error.value)
    assert run_and_catch(capsys, error.value) == (2, 'error: image 3.jpg is truncated\n')


def test_interruption_has_its_own_status(capsys):
    assert run_and_catch(capsys, KeyboardInterrupt()) == (130, 'error: interrupted\n')


@pytest.mark.parametrize('error', [ValueError('a bug'), KeyError('a bug'), RuntimeError('a bug')])
def test_bugs_keep_their_traceback(error):
    def main():
        raise error
    with pytest.raises(type(error), match='a bug'):
        cli.run(main)


def test_success_returns():
    assert cli.run(lambda: None) is None


def test_other_processes_wait_before_they_repeat_an_error(capsys, monkeypatch):
    waited = []
    monkeypatch.setenv('RANK', '3')
    monkeypatch.setattr(cli.time, 'sleep', waited.append)
    status, line = run_and_catch(capsys, InputError('a.jpg is truncated'))
    assert (status, line) == (2, 'error: a.jpg is truncated (process 3)\n')
    assert waited == [cli._OTHERS_WAIT]


def test_damaged_checkpoint_is_one_line(capsys, tmp_path):
    for name, content in (('cut.pth', None), ('text.pth', b'no checkpoint')):
        path = tmp_path / name
        torch.save({'weight': torch.zeros(1000)}, path)
        path.write_bytes(content or path.read_bytes()[:600])
        with pytest.raises(Exception) as error:  # noqa: B017  (its type is torch's affair)
            torch.load(path, weights_only=True)
        status, line = run_and_catch(capsys, error.value)
        assert status == 2 and line.startswith('error: the checkpoint is damaged') and line.count('\n') == 1
