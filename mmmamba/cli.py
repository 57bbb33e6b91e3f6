"""What every command line tool does: a failure is one clear line and an exit status that scripts can test."""
from __future__ import annotations

import atexit
import errno
import importlib.util
import os
import re
import shlex
import signal
import sys
import threading
import time
import warnings
from argparse import ArgumentTypeError
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch.distributed import DistNetworkError, DistStoreError

from mmmamba.errors import InputError, PartialResultError, process_rank

_BAD_INPUT = 2
_PARTIAL_RESULT = 3
_INTERRUPTED = 130
_NOT_READ = 141
_START_OVER = 'the same call starts from the beginning'
_OTHERS_WAIT = 10.0  # seconds
DATA_ROOTS = ('BCCD', 'COCO', 'FRUITS_NUTS', 'VOC')
"""Environment variables that our configs read: where the data sets are."""
# Libraries that send numbers elsewhere (--logger), and how to do without.
_LOGGERS = {'wandb': ' (WANDB_MODE=offline needs no account and no network)', 'mlflow': ''}
# Commands by their files in tools/.
_TOOLS = {'test': 'test.py', 'predict': 'image_demo.py', 'export': 'deployment/export.py'}
# Optional packages that configs and tools ask for, by the names of their modules.
_PACKAGES = {
    **{name: name for name in ('aim', 'albumentations', 'clearml', 'dvclive', 'imagecorruptions', 'instaboostfast',
                               'lvis', 'matplotlib', 'mlflow', 'mmpretrain', 'neptune', 'onnx', 'onnxruntime',
                               'onnxscript', 'openvino', 'pandas', 'scipy', 'seaborn', 'supervision', 'tensorboard',
                               'torchvision', 'trackers', 'transformers', 'wandb')},
    # Of their several distributions, what suffices and needs no compiler.
    **{name: 'mmmamba[lite]' for name in ('mmcv', 'mmdet', 'mmengine')},
    'cv2': 'opencv-python', 'git': 'gitpython', 'PIL': 'pillow', 'skimage': 'scikit-image',
    'sklearn': 'scikit-learn'}
# Failures of a disk whose error may name no file.
_DISK = {errno.ENOSPC: 'no space left on the disk', errno.EDQUOT: 'the disk quota is used up',
         errno.EROFS: 'the disk can only be read', errno.EIO: 'the disk fails'}
# What gloo and NCCL say when another process has ended, or its machine cannot be reached.
_LOST = re.compile(r'Connection (closed|reset) by peer|Timed out waiting|[Ss]ocket [Tt]imeout|ncclRemoteError|'
                   r'[Gg]loo.*(Broken pipe|No route to host|Connection timed out|Connection refused)')
# What PyTorch says when the system ends a process of a DataLoader, for want of memory (shared memory: bus error).
_WORKER_KILLED = re.compile(r'DataLoader worker \(pid.*\) is killed by signal: (Killed|Bus error)')
# Registries of some mmengine versions put "class `X` in path/x.py: " before a constructor's message.
_REGISTRY_PREFIX = re.compile(r'^class `\w+` in \S+: ')


def run(main: Callable[[], None]) -> None:
    """Runs a tool's ``main`` and ends the process with status 0, 2 (bad input), 3 (of some inputs only), 130
    (interrupted) or 141 (whoever reads its output has stopped, as ``head`` does).

    Errors that are not the user's keep their traceback. Under a launcher, where several processes usually fail of the
    same cause, the first prints; another prints only if it is not ended meanwhile, which means the error is its own.
    A tool that can go on after Ctrl-C raises ``KeyboardInterrupt`` anew with a text that says how.

    Args:
        main: The tool, without arguments.
    """
    interruptions = _Interruptions()
    # mmdet and mmengine cause these; whoever runs a tool can do nothing about them.
    warnings.filterwarnings('ignore', r'torch\.meshgrid: in an upcoming release|pkg_resources is deprecated as an API')
    try:
        main()
        sys.stdout.flush()
    except KeyboardInterrupt as error:
        _end_interrupted(str(error))
    except Exception as error:
        if interruptions.number:  # a data worker was interrupted first
            _end_interrupted('')
        if isinstance(error, BrokenPipeError) and _output_is_unread():
            sys.exit(_NOT_READ)
        message = describe(error)
        if message is None:
            raise
        _fail(message, _PARTIAL_RESULT if isinstance(error, PartialResultError) else _BAD_INPUT)
    finally:
        interruptions.ignore_no_longer()


class _Interruptions:
    """Counts Ctrl-C: the first raises ``KeyboardInterrupt``, the second is ignored, the third ends the process.

    People press it twice; an orderly end, which lasts a moment, shall not be torn by the second one. In what Python
    calls by itself, at a fork or at an object's end, an exception would only be printed: there it comes again, later.
    """

    def __init__(self) -> None:
        self.number = 0
        self._handled = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # else the caller ignores it
        if self._handled:
            signal.signal(signal.SIGINT, self._on_signal)
            self._print_unraisable, sys.unraisablehook = sys.unraisablehook, self._on_unraisable

    def ignore_no_longer(self) -> None:
        """Gives the signal back, unless the process is about to end because of it."""
        if self._handled:
            sys.unraisablehook = self._print_unraisable
            atexit.register(self._ignore_at_exit)
            if not self.number:
                signal.signal(signal.SIGINT, signal.default_int_handler)

    def _on_signal(self, number: int, frame: object) -> None:
        self.number += 1
        if self.number == 1:
            raise KeyboardInterrupt
        if self.number > 2:
            os._exit(_INTERRUPTED)

    def _ignore_at_exit(self) -> None:
        self.number = max(self.number, 1)
        signal.signal(signal.SIGINT, self._on_signal)

    def _on_unraisable(self, unraisable: Any) -> None:
        if unraisable.exc_type is KeyboardInterrupt:
            self.number -= 1
            # On Windows, os.kill would end the process.
            send = partial(os.kill, os.getpid()) if os.name == 'posix' else signal.raise_signal
            threading.Timer(0.01, send, (signal.SIGINT, )).start()
        else:
            self._print_unraisable(unraisable)


def describe(error: BaseException) -> str | None:
    """Puts an error that the user can mend into one line.

    Args:
        error: What was raised.

    Returns:
        The line, or None where the error is the program's.
    """
    text = str(error)
    if isinstance(error, InputError):
        if text.startswith('Caught '):  # in a data worker, whose traceback has become the message
            text = text.strip().splitlines()[-1].partition(': ')[2]
        return _one_line(_REGISTRY_PREFIX.sub('', text))
    if isinstance(error, FileNotFoundError):
        return _one_line(f'no such file: {error.filename}' if error.filename else text)
    if isinstance(error, (PermissionError, NotADirectoryError, IsADirectoryError, FileExistsError)) and error.filename:
        return _one_line(f'cannot use {error.filename}: {error.strerror}')
    if isinstance(error, ImportError):
        return _missing_module(error)
    if isinstance(error, RuntimeError) and re.match(r'\S+ is not installed', text):  # as mmdet says it of packages
        return _one_line(text)
    if isinstance(error, OSError) and error.errno in _DISK:
        return _one_line(f'{_DISK[error.errno]}: {error.filename or text}')
    if isinstance(error, RuntimeError) and _WORKER_KILLED.match(text):
        return ('a process that reads the data was killed, as happens when the memory is full; fewer --workers, or a '
                'smaller --batch-size, take less')
    if isinstance(error, UnpicklingError) or 'PytorchStreamReader' in text:
        refused = re.search(r'GLOBAL (\S+) was not an allowed global', text)  # torch.load advises to allow it
        reason = f'it names {refused[1]}, which is not run' if refused else text.strip().splitlines()[0]
        return _one_line(f'the checkpoint is damaged or holds more than weights: {reason}')
    if isinstance(error, DistStoreError) and re.search('waiting for clients|wait timeout', text):
        return _one_line(f'not all processes of this run have come: {text}')
    if isinstance(error, DistNetworkError) and 'EADDRINUSE' in text:
        return _one_line(f'another run uses the port, PORT=N or MASTER_PORT=N names another: {text}')
    if isinstance(error, DistNetworkError) and 'trying to connect to' in text:
        return _one_line(f'the first process of this run cannot be reached: {text}')
    if isinstance(error, RuntimeError) and _LOST.search(text):
        return _one_line('the contact to another process of this run is lost; if it ended, it said why: '
                         f'{text.strip().splitlines()[0]}')
    library = type(error).__module__.partition('.')[0]
    if library in _LOGGERS:
        return _one_line(f'{library}: {text}{_LOGGERS[library]}')
    if isinstance(error, KeyError):
        unknown = re.search(r'(\S+) is not in the \S*?([\w ]+) registry', text)
        return f'unknown {unknown[2]}: {unknown[1].strip(chr(39) + chr(34))}' if unknown else None
    return None


def command(words: Sequence[str]) -> str:
    """Returns a call of a Python script, or of a command such as ``'mmmamba train'``, as it is typed into a shell."""
    program, *arguments = words
    return shlex.join([*(['python', program] if program.endswith('.py') else program.split()), *arguments])


def call_again(words: Sequence[str]) -> str:
    """Returns a call as :func:`command`, with the data sets' folders that this process was given."""
    roots = [f'{name}={shlex.quote(os.environ[name])}' for name in DATA_ROOTS if name in os.environ]
    return ' '.join([*roots, command(words)])


def next_call(name: str, *arguments: object) -> str:
    """Returns the call of another command, as this process was called: by ``mmmamba``, or by a file of ``tools/``.

    Args:
        name: ``'test'``, ``'predict'`` or ``'export'``.
        *arguments: Of the command.
    """
    tool = Path(sys.argv[0]).parent / _TOOLS[name]
    if not (sys.argv[0].endswith('.py') and tool.is_file()):
        return command([f'mmmamba {name}', *map(str, arguments)])
    if name == 'predict':  # the tool takes its sources first
        arguments = (*arguments[2:], *arguments[:2])
    return command([str(tool), *map(str, arguments)])


def require_folder_of(path: Path) -> None:
    """Checks a file that is to be written.

    Raises:
        InputError: Its folder is not there.
    """
    if not path.absolute().parent.is_dir():
        raise InputError(f'{path}: there is no folder {path.parent}')


def require_device(name: str) -> torch.device:
    """Returns the device of an argument ``--device``.

    Raises:
        InputError: It is neither ``cpu`` nor ``cuda`` or ``cuda:0``, …, or this PyTorch does not see it.
    """
    if not re.fullmatch(r'cpu|cuda(:\d+)?', name):
        raise InputError(f'--device {name}: must be cpu, cuda or cuda:N')
    device, seen = torch.device(name), torch.cuda.device_count()
    if device.type == 'cuda' and (device.index or 0) >= seen:
        devices = ', '.join(f'cuda:{index}' for index in range(seen)) or 'no CUDA device'
        raise InputError(f'--device {name}: this PyTorch sees {devices}')
    return device


def device_named(name: str) -> torch.device:
    """Returns a device for argparse: ``cpu``, or ``cuda`` if there is one."""
    if name not in ('cpu', 'cuda'):
        raise ArgumentTypeError(f'must be cpu or cuda, not {name!r}')
    if name == 'cuda' and not torch.cuda.is_available():
        raise ArgumentTypeError('this PyTorch sees no CUDA device')
    return torch.device(name)


def _missing_module(error: BaseException | None) -> str | None:
    """Names the module whose import failed, in ``error`` or in what it was raised from; None if none is missing."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and error.name:
            module = error.name.partition('.')[0]
            if importlib.util.find_spec(module) is None:
                advice = (f'pip install {_PACKAGES[module]}' if module in _PACKAGES
                          else 'install it, or add its folder to PYTHONPATH')
                return f'the package {module} is missing: {advice}'
        error = error.__cause__ or error.__context__
    return None


def _one_line(text: str) -> str:
    return ' '.join(text.split())


def _end_interrupted(how_to_go_on: str) -> None:
    if not process_rank():  # all processes were interrupted; one says so
        print(f'error: interrupted; {how_to_go_on or _START_OVER}', file=sys.stderr, flush=True)
    sys.exit(_INTERRUPTED)


def _output_is_unread() -> bool:
    """Tells whether nobody reads what is printed; if so, the rest goes nowhere, and the process can end quietly."""
    try:
        print(flush=True)  # a line, since what was refused may have left the buffer, and nothing would be written
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def _fail(message: str, status: int) -> None:
    rank = process_rank()
    if rank:
        time.sleep(_OTHERS_WAIT)
        message = f'{message} (process {rank})'
    print(f'error: {message}', file=sys.stderr, flush=True)
    sys.exit(status)
