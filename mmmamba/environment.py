"""Where measurements were made, so that those of different machines are not mixed."""
from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType

import torch

from mmmamba.ops.cpu import native
from mmmamba.version import __version__

ENVIRONMENT = ('device', 'threads', 'mmmamba', 'torch', 'triton')
_CPUINFO = Path('/proc/cpuinfo')


def environment(device: str, threads: int) -> Mapping[str, str]:
    """By the names in ``ENVIRONMENT``: the GPU, or the CPU and its instruction set; threads; versions.

    Args:
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        threads: Of PyTorch, on the CPU.
    """
    try:
        triton = version('triton')
    except PackageNotFoundError:
        triton = ''
    if torch.device(device).type == 'cuda':
        name = torch.cuda.get_device_name(device)
    else:
        name = ' '.join(['cpu', cpu_name(), *native.available_isas()[-1:]])
    return MappingProxyType(dict(zip(ENVIRONMENT, (name, str(threads), __version__, torch.__version__, triton))))


def cpu_name() -> str:
    """As its maker calls it; where the system does not tell, the instruction set's name."""
    text = _CPUINFO.read_text(encoding='utf-8') if _CPUINFO.exists() else ''
    model = re.search(r'^model name\s*:\s*(\S.*)$', text, re.MULTILINE)
    return ' '.join(model[1].split()) if model else platform.machine()
