"""One line and a status for every failure that is the user's."""
import errno
import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import Registry
from torch.distributed import DistNetworkError, DistStoreError
from torch.utils.data import DataLoader

from mmmamba import cli
from mmmamba.cli import DATA_ROOTS, call_again
from mmmamba.errors import InputError, process_rank


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
    (OSError(errno.EROFS, 'Read-only file system', '/runs/a'), 'the disk can only be read: /runs/a'),
    (OSError(errno.EIO, 'Input/output error'), 'the disk fails: [Errno 5] Input/output error'),
    (RuntimeError('DataLoader worker (pid 7) is killed by signal: Killed. '),
     'a process that reads the data was killed, as happens when the memory is full; fewer --workers, or a smaller '
     '--batch-size, take less'),
    (DistStoreError('Timed out after 21 seconds waiting for clients. 1/2 clients joined.'),
     'not all processes of this run have come: Timed out after 21 seconds waiting for clients. 1/2 clients joined.'),
    (DistStoreError('wait timeout after 15000ms, keys: /default_pg/0//cpu//0/1'),
     'not all processes of this run have come: wait timeout after 15000ms, keys: /default_pg/0//cpu//0/1'),
    (DistNetworkError('The client socket has timed out after 20000ms while trying to connect to (10.0.0.1, 29500).'),
     'the first process of this run cannot be reached: The client socket has timed out after 20000ms while trying to '
     'connect to (10.0.0.1, 29500).'),
    (DistNetworkError('The server socket has failed to listen. port: 29500, name: EADDRINUSE'),
     'another run uses the port, PORT=N or MASTER_PORT=N names another: The server socket has failed to listen. port: '
     '29500, name: EADDRINUSE'),
    (PermissionError(errno.EACCES, 'Permission denied', '/runs/a'), 'cannot use /runs/a: Permission denied'),
    (NotADirectoryError(errno.ENOTDIR, 'Not a directory', 'a.txt/b'), 'cannot use a.txt/b: Not a directory'),
    (RuntimeError('albumentations is not installed'), 'albumentations is not installed'),
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


@pytest.mark.parametrize('text, line', [
    ('', 'interrupted; the same call starts from the beginning'),
    ('continue with: python a.py --resume', 'interrupted; continue with: python a.py --resume')])
def test_interruption_has_its_own_status_and_says_how_to_go_on(capsys, monkeypatch, text, line):
    assert run_and_catch(capsys, KeyboardInterrupt(text)) == (130, f'error: {line}\n')
    monkeypatch.setenv('RANK', '1')  # of several processes, the first says it
    assert run_and_catch(capsys, KeyboardInterrupt(text)) == (130, '')


@pytest.mark.parametrize('variables, rank', [
    ({}, 0), ({'RANK': '3', 'SLURM_PROCID': '0'}, 3), ({'SLURM_PROCID': '2'}, 2),
    ({'OMPI_COMM_WORLD_RANK': '1', 'SLURM_PROCID': '0'}, 1)])
def test_the_number_of_a_process_is_its_launchers(monkeypatch, variables, rank):
    for name in ('RANK', 'OMPI_COMM_WORLD_RANK', 'SLURM_PROCID'):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert process_rank() == rank


def test_a_call_to_repeat_has_the_folders_of_data_that_it_was_given(monkeypatch):
    for name in DATA_ROOTS:
        monkeypatch.delenv(name, raising=False)
    assert call_again(['train.py', 'a b.py']) == "python train.py 'a b.py'"
    monkeypatch.setenv('BCCD', '/my data')
    monkeypatch.setenv('VOC', '/voc')
    assert call_again(['train.py']) == "BCCD='/my data' VOC=/voc python train.py"


def test_all_variables_that_configs_read_are_known():
    configs = Path(__file__).resolve().parents[1] / 'configs'
    read = {name for path in configs.rglob('*.py') for name in re.findall(r'\{\{\$(\w+)', path.read_text())}
    assert read == set(DATA_ROOTS)


@pytest.fixture
def interruptible():
    """Ctrl-C raises, even where a shell has it ignored for what it starts in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize('error, presses, lines', [
    (KeyboardInterrupt('call it again'), 1, 'error: interrupted; call it again\n'),
    (KeyboardInterrupt('call it again'), 2, 'error: interrupted; call it again\n'),
    (RuntimeError('a data worker exited'), 1, 'error: interrupted; the same call starts from the beginning\n'),
    (KeyboardInterrupt('call it again'), 3, 'ended at once\n'),
])
@pytest.mark.usefixtures('interruptible')
def test_a_second_interruption_does_not_tear_the_end_and_a_third_is_one(capsys, monkeypatch, error, presses, lines):
    def end_at_once(status: int) -> None:
        print('ended at once', file=sys.stderr)
        raise SystemExit(status)

    def main() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        except KeyboardInterrupt:
            for _ in range(presses - 1):
                os.kill(os.getpid(), signal.SIGINT)
            raise error from None

    monkeypatch.setattr(cli.os, '_exit', end_at_once)
    with pytest.raises(SystemExit) as ended:
        cli.run(main)
    assert ended.value.code == 130 and capsys.readouterr().err == lines


@pytest.mark.usefixtures('interruptible')
def test_an_interruption_that_python_cannot_raise_comes_again(capsys):

    class Unlucky:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.001)  # it is raised in here

    def main() -> None:
        Unlucky()
        time.sleep(5)

    with pytest.raises(SystemExit) as ended:
        cli.run(main)
    assert ended.value.code == 130
    assert capsys.readouterr().err == 'error: interrupted; the same call starts from the beginning\n'


@pytest.mark.usefixtures('interruptible')
def test_the_end_of_python_is_not_interrupted_before_the_second_time(monkeypatch):
    at_exit = []
    monkeypatch.setattr(cli.atexit, 'register', at_exit.append)
    monkeypatch.setattr(os, '_exit', lambda status: at_exit.append(status))
    cli.run(lambda: None)
    prepare, = at_exit
    prepare()
    signal.raise_signal(signal.SIGINT)
    assert at_exit == [prepare]
    signal.raise_signal(signal.SIGINT)
    assert at_exit == [prepare, 130]


def test_a_caller_that_ignores_interruptions_is_left_to_it():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        cli.run(lambda: os.kill(os.getpid(), signal.SIGINT))
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize('handler', [signal.default_int_handler, signal.SIG_IGN])
def test_the_signal_is_given_back(handler):
    before = signal.signal(signal.SIGINT, handler)
    try:
        cli.run(lambda: None)
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)


def raised(statement: str) -> BaseException:
    with pytest.raises(ImportError) as error:
        exec(statement, {})
    return error.value


@pytest.mark.parametrize('module, advice', [
    ('tensorboard', 'pip install tensorboard'), ('skimage.io', 'pip install scikit-image'),
    ('matplotlib.figure', 'pip install matplotlib'), ('my_own_backbone', 'add its folder to PYTHONPATH')])
@pytest.mark.parametrize('statement', [
    'import {}', 'try:\n    import {}\nexcept ImportError:\n    raise ImportError("Please run …")'])
def test_a_missing_package_is_named(capsys, monkeypatch, module, advice, statement):
    name = module.partition('.')[0]
    monkeypatch.setitem(sys.modules, name, None)
    status, line = run_and_catch(capsys, raised(statement.format(module)))
    assert status == 2 and line.count('\n') == 1
    assert line.startswith(f'error: the package {name} is missing: ') and advice in line


@pytest.mark.parametrize('statement', ['import torch.none_such', 'from torch import none_such'])
def test_a_module_that_an_installed_package_lacks_keeps_its_traceback(statement):
    error = raised(statement)

    def main():
        raise error
    with pytest.raises(ImportError):
        cli.run(main)


@pytest.mark.parametrize('error', [ValueError('a bug'), KeyError('a bug'), RuntimeError('a bug')])
def test_bugs_keep_their_traceback(error):
    def main():
        raise error
    with pytest.raises(type(error), match='a bug'):
        cli.run(main)


@pytest.mark.parametrize('lines', [1, 10_000])
def test_an_output_that_nobody_reads_ends_it_quietly(capfd, monkeypatch, lines):
    read, write = os.pipe()
    os.close(read)
    with pytest.raises(SystemExit) as ended, open(write, 'w') as output:
        monkeypatch.setattr(sys, 'stdout', output)
        cli.run(lambda: print('a table\n' * lines))
    assert ended.value.code == 141 and capfd.readouterr().err == ''


def test_a_broken_pipe_elsewhere_keeps_its_traceback():
    def main():
        raise BrokenPipeError(errno.EPIPE, 'to a data worker')
    with pytest.raises(BrokenPipeError):
        cli.run(main)


@pytest.mark.parametrize('name, message', [
    ('gpu', 'must be cpu, cuda or cuda:N'), ('cuda:x', 'must be cpu'), ('cuda:1', 'this PyTorch sees cuda:0$')])
def test_a_device_that_is_not_there_is_one_line(monkeypatch, name, message):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 1)
    with pytest.raises(InputError, match=f'--device {name}: {message}'):
        cli.require_device(name)
    assert cli.require_device('cuda') == torch.device('cuda') and cli.require_device('cuda:0').index == 0


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


def test_a_logger_that_cannot_log_in_is_one_line(capsys):
    refusal = type('UsageError', (Exception,), {'__module__': 'wandb.errors.errors'})('No API key\nconfigured.')
    status, printed = run_and_catch(capsys, refusal)
    assert status == 2 and printed.startswith('error: wandb: No API key configured. (WANDB_MODE=offline')


@pytest.mark.parametrize('program, expected', [
    ('mmmamba train', "mmmamba export 'my config.py' a.pth"),
    ('TOOLS/train.py', "python TOOLS/deployment/export.py 'my config.py' a.pth"),
    ('elsewhere/my_train.py', "mmmamba export 'my config.py' a.pth"),
])
def test_the_next_call_is_spelled_as_this_one(program, expected, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[1])
    monkeypatch.setattr(sys, 'argv', [program.replace('TOOLS', 'tools'), 'config.py'])
    assert cli.next_call('export', 'my config.py', Path('a.pth')) == expected.replace('TOOLS', 'tools')
