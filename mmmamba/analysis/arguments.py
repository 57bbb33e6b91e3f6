"""Checks that command line tools share."""
from __future__ import annotations

import re
from pathlib import Path

import torch

from mmmamba.errors import InputError


def require_folder_of(path: Path) -> None:
    """Of a file to be written.

    Raises:
        InputError: Its folder is not there.
    """
    if not path.absolute().parent.is_dir():
        raise InputError(f'{path}: there is no folder {path.parent}')


def require_device(name: str) -> None:
    """Of an argument ``--device``.

    Raises:
        InputError: It is neither ``cpu`` nor ``cuda`` or ``cuda:0``, …, or this PyTorch does not see it.
    """
    if not re.fullmatch(r'cpu|cuda(:\d+)?', name):
        raise InputError(f'--device {name}: must be cpu, cuda or cuda:N')
    try:
        torch.empty(0, device=name)
    except (AssertionError, RuntimeError) as error:  # what PyTorch says to a device that is not there
        raise InputError(f'--device {name}: {error}') from error
