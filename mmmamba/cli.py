"""What every command line tool does with a failure: one clear line and an exit status that scripts can test."""
from __future__ import annotations

import errno
import os
import re
import sys
import time
from collections.abc import Callable
from pickle import UnpicklingError

from mmmamba.errors import InputError, PartialResultError

_BAD_INPUT = 2
_PARTIAL_RESULT = 3
_INTERRUPTED = 130
_OTHERS_WAIT = 10.0  # seconds
# Registries of some mmengine versions put "class `X` in path/x.py: " before a constructor's message.
_REGISTRY_PREFIX = re.compile(r'^class `\w+` in \S+: ')


def run(main: Callable[[], None]) -> None:
    """Runs a tool's ``main`` and ends the process with status 0, 2 (bad input), 3 (of some inputs only) or 130
    (interrupted).

    Errors that are not the user's keep their traceback. Under a launcher, where several processes usually fail of the
    same cause, the first prints; another prints only if it is not ended meanwhile, which means the error is its own.

    Args:
        main: The tool, without arguments.
    """
    try:
        main()
    except KeyboardInterrupt:
        _fail('interrupted', _INTERRUPTED)
    except Exception as error:
        message = describe(error)
        if message is None:
            raise
        _fail(message, _PARTIAL_RESULT if isinstance(error, PartialResultError) else _BAD_INPUT)


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
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return _one_line(f'no space left on the disk: {error.filename or text}')
    if isinstance(error, UnpicklingError) or 'PytorchStreamReader' in text:
        return _one_line(f'the checkpoint is damaged or holds more than weights: {text.strip().splitlines()[0]}')
    if isinstance(error, KeyError):
        unknown = re.search(r'(\S+) is not in the \S*?([\w ]+) registry', text)
        return f'unknown {unknown[2]}: {unknown[1].strip(chr(39) + chr(34))}' if unknown else None
    return None


def _one_line(text: str) -> str:
    return ' '.join(text.split())


def _fail(message: str, status: int) -> None:
    rank = int(os.environ.get('RANK') or os.environ.get('SLURM_PROCID') or 0)
    if rank:
        time.sleep(_OTHERS_WAIT)
        message = f'{message} (process {rank})'
    print(f'error: {message}', file=sys.stderr, flush=True)
    sys.exit(status)
